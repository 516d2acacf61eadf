//! One direction of a flow.
use crate::{family::IpFamily, port::Port};

/// Addresses, ports and protocol of one direction of a flow, as a packet carries them at one place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple<F: IpFamily> {
    /// Who sends.
    pub source: F::Address,
    /// Who receives.
    pub destination: F::Address,
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero: the tuple is a map key, compared byte by byte.
    pub spare: [u8; 3],
}

impl<F: IpFamily> Tuple<F> {
    /// The same conversation seen from the other end.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            spare: [0; 3],
        }
    }
    /// The tuple with another destination.
    #[inline(always)]
    #[must_use]
    pub fn with_destination(mut self, address: F::Address, port: Port) -> Self {
        self.destination = address;
        self.destination_port = port;
        self
    }
    /// The tuple with another source.
    #[inline(always)]
    #[must_use]
    pub fn with_source(mut self, address: F::Address, port: Port) -> Self {
        self.source = address;
        self.source_port = port;
        self
    }
}
