//! What the datapath knows of a packet.
use bytemuck::Zeroable;
use lb_common::{Port, Protocol, Tuple};

use super::headers::{TcpFlags, Wire};

/// The transport header starts below this offset, or the packet is not ours: 1024 bytes of headers are no traffic that
/// services see.
pub(super) const OFFSET_MASK: usize = 0x3ff;

/// What the datapath knows of a packet. Having it guarantees that the IP header at `l3_offset` and the TCP or UDP
/// header at `l4_offset` were readable when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<F: Wire> {
    /// Addresses, ports, protocol.
    pub tuple: Tuple<F>,
    l3_offset: u16,
    l4_offset: u16,
    /// TCP's control bits; for SCTP those of a segment that would say as much; none for UDP.
    pub tcp_flags: TcpFlags,
    pub(super) fragment: u8,
    pub(super) identification: u32,
}

impl<F: Wire> Parsed<F> {
    /// Bytes before the IP header. Masked to a number that the verifier believes to lie in a packet.
    #[inline(always)]
    pub fn l3_offset(&self) -> usize {
        usize::from(self.l3_offset) & OFFSET_MASK
    }
    /// Bytes before the transport header; masked likewise.
    #[inline(always)]
    pub fn l4_offset(&self) -> usize {
        usize::from(self.l4_offset) & OFFSET_MASK
    }
    /// `offset` is at most [`OFFSET_MASK`].
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    pub(super) fn set_l4_offset(&mut self, offset: usize) {
        self.l4_offset = offset as u16;
    }
    /// Whether this is the first of several fragments.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment != 0
    }
    /// IPv6: the identification of the datagram it is a fragment of, as it lies in the packet.
    #[inline(always)]
    pub fn identification(&self) -> u32 {
        self.identification
    }
    /// Whether the packet is SCTP.
    #[inline(always)]
    pub fn is_sctp(&self) -> bool {
        self.tuple.protocol_number() == Protocol::Sctp.number()
    }
    /// Whether it is the first part of an SCTP packet. What other ports change in the sum depends on the length of the
    /// whole, which a part does not tell; and SCTP sends none, for it has parts of its own (RFC 9260, section 6.9).
    #[inline(always)]
    pub fn is_part_of_sctp(&self) -> bool {
        self.is_fragment() && self.is_sctp()
    }
    /// Whether the packet is UDP; otherwise it is TCP or SCTP.
    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        is_udp(&self.tuple)
    }
    /// Whether the transport protocol is the family's ICMP (RFC 792, RFC 4443).
    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        self.tuple.protocol_number() == if F::VERSION == 4 { 1 } else { 58 }
    }
    /// `offset` is below two VLAN tags' and a quoting packet's headers, which were parsed before.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    pub(super) fn set_l3_offset(&mut self, offset: usize) {
        self.l3_offset = offset as u16;
    }
    /// A packet of this protocol without ports: those of an earlier packet must not be told as its own.
    #[inline(always)]
    pub(super) fn set_portless(&mut self, protocol: u8) {
        self.tuple.protocol = u32::from(protocol);
        (self.tuple.source_port, self.tuple.destination_port) = (Port::ZERO, Port::ZERO);
    }
    /// Nothing parsed yet.
    pub fn zero() -> Self
    where
        Tuple<F>: Zeroable,
    {
        Self {
            tuple: Tuple::zeroed(),
            l3_offset: 0,
            l4_offset: 0,
            tcp_flags: TcpFlags::default(),
            fragment: 0,
            identification: 0,
        }
    }
}

/// Whether a tuple is of UDP.
#[inline(always)]
pub fn is_udp<F: Wire>(tuple: &Tuple<F>) -> bool {
    tuple.protocol_number() == Protocol::Udp.number()
}

/// Memory with a [`Parsed`], which is borrowed anew for each use.
pub trait ParsedMemory<F: Wire> {
    /// What is parsed so far.
    fn parsed_mut(&mut self) -> &mut Parsed<F>;
}

impl<F: Wire> ParsedMemory<F> for Parsed<F> {
    #[inline(always)]
    fn parsed_mut(&mut self) -> &mut Self {
        self
    }
}
