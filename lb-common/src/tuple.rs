//! One direction of a flow.
use crate::{family::IpFamily, port::Port};

/// Addresses, ports and protocol of one direction of a flow, as a packet carries them at one hook.
///
/// Packets that enter and packets that leave are told apart: a client's direct packet to a backend that enters has the
/// addresses of its packet for a Service of that backend that leaves, and they belong to different flows.
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
    /// IANA protocol number in the lowest byte, [`Self::LEAVES`] and [`Self::AWAITED`]: the tuple is a map key, compared
    /// byte by byte, and has no holes.
    pub protocol: u32,
}

impl<F: IpFamily> Tuple<F> {
    /// Bit of [`Self::protocol`]: the packet is on its way out, at an egress hook.
    pub const LEAVES: u32 = 1 << 8;
    /// Bit of [`Self::protocol`]: no packet's tuple. The entry under it says that an answer with this tuple is awaited,
    /// and translates nothing.
    pub const AWAITED: u32 = 1 << 9;

    /// The tuple of a packet that enters.
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
    #[expect(clippy::cast_possible_truncation, reason = "the lowest byte")]
    pub fn protocol_number(&self) -> u8 {
        self.protocol as u8
    }
    /// The same packet where it leaves.
    #[inline(always)]
    #[must_use]
    pub fn leaving(mut self) -> Self {
        self.protocol |= Self::LEAVES;
        self
    }
    /// The key that says that a packet with this tuple is awaited.
    #[inline(always)]
    #[must_use]
    pub fn awaited(mut self) -> Self {
        self.protocol |= Self::AWAITED;
        self
    }
    /// Whether it is such a key.
    pub fn is_awaited(&self) -> bool {
        self.protocol & Self::AWAITED != 0
    }
    /// The same packet at the other kind of hook.
    #[inline(always)]
    #[must_use]
    pub fn crossed(mut self) -> Self {
        self.protocol ^= Self::LEAVES;
        self
    }
    /// The same conversation seen from the other end, at the same kind of hook.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
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
