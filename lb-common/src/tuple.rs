//! One direction of a flow.
use crate::{family::IpFamily, port::Port};

/// Addresses, ports and protocol of one direction of a flow, as a packet carries them at one place.
#[repr(C, align(8))]
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
    /// IANA protocol number, as a whole word: the tuple is a map key, compared byte by byte, and has no holes.
    pub protocol: u32,
}

impl<F: IpFamily> Tuple<F> {
    /// A tuple of its parts.
    #[inline(always)]
    pub fn new(
        source: F::Address,
        source_port: Port,
        destination: F::Address,
        destination_port: Port,
        protocol: u8,
    ) -> Self {
        Self {
            source,
            destination,
            source_port,
            destination_port,
            protocol: u32::from(protocol),
        }
    }
    /// The protocol as headers and frontends have it.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "made from a byte, in `new`"
    )]
    pub fn protocol_number(&self) -> u8 {
        self.protocol as u8
    }
    /// The same conversation seen from the other end.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self::new(
            self.destination,
            self.destination_port,
            self.source,
            self.source_port,
            self.protocol_number(),
        )
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
