//! Where a program keeps what it is working on.
//!
//! In the kernel this is memory of the CPU, not the stack: 512 bytes would not hold the keys and entries of an IPv6
//! flow, and what is read back from it is unknown to the verifier. The many ways a packet can be parsed then end in one
//! state, and what follows is verified once, not once for each chain of headers.
use bytemuck::{Pod, Zeroable};
use lb_common::{BackendId, FlowEntry, FrontendEntry, Tuple, V4, V6};

use crate::bytes::{headers::Wire, parse::Parsed};

/// The memory of one run, of which one family is used.
#[derive(Clone, Copy)]
pub struct Scratch {
    /// For an IPv4 packet.
    pub v4: FamilyScratch<V4>,
    /// For an IPv6 packet.
    pub v6: FamilyScratch<V6>,
}

/// The memory of one family.
#[derive(Clone, Copy)]
pub struct FamilyScratch<F: Wire> {
    /// The packet.
    pub parsed: Parsed<F>,
    /// Flow entries at hand.
    pub entries: Entries<F>,
    /// An ICMP message that speaks of another packet: then `parsed` is that packet.
    pub message: Message<F>,
}

/// An ICMP message.
#[derive(Clone, Copy)]
pub struct Message<F: Wire> {
    /// Who sends it.
    pub source: F::Address,
    /// Who receives it.
    pub destination: F::Address,
    /// Bytes before its IP header.
    l3_offset: u32,
    /// Bytes before its ICMP header.
    offset: u32,
    /// Bytes before its end.
    end: u32,
}

/// Flow entries that are looked at or made.
#[derive(Clone, Copy)]
pub struct Entries<F: Wire> {
    /// The entry of the packet's own tuple.
    pub own: FlowEntry<F>,
    /// The key of the other half.
    pub other_key: Tuple<F>,
    /// The entry of the other half.
    pub other: FlowEntry<F>,
    /// The frontend that the packet is for.
    pub frontend: FrontendEntry,
    /// The backend that the client is to go back to; 0: none.
    pub kept: BackendId,
    /// Not 0: which backend the flow gets is remembered for the client.
    pub sticks: u32,
}

/// Offsets are kept as they were parsed: a packet's are below this.
const OFFSET_MASK: u32 = 0x3ff;

impl<F: Wire> Message<F> {
    /// Notes where the message is: its IP header, its ICMP header, its end.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "offsets in a packet of less than 64 KiB and its headers"
    )]
    pub fn set_place(&mut self, l3_offset: usize, offset: usize, end: usize) {
        (self.l3_offset, self.offset, self.end) = (l3_offset as u32, offset as u32, end as u32);
    }
    /// Bytes before its IP header. Masked to a number that the verifier believes to lie in a packet.
    #[inline(always)]
    pub fn l3_offset(&self) -> usize {
        (self.l3_offset & OFFSET_MASK) as usize
    }
    /// Bytes before its ICMP header; masked likewise.
    #[inline(always)]
    pub fn offset(&self) -> usize {
        (self.offset & OFFSET_MASK) as usize
    }
    /// Bytes before its end.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.end as usize
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            v4: FamilyScratch::zero(),
            v6: FamilyScratch::zero(),
        }
    }
}

impl<F: Wire> FamilyScratch<F>
where
    Tuple<F>: Pod,
    FlowEntry<F>: Pod,
{
    fn zero() -> Self {
        Self {
            parsed: Parsed::zero(),
            entries: Entries {
                own: FlowEntry::zeroed(),
                other_key: Tuple::zeroed(),
                other: FlowEntry::zeroed(),
                frontend: FrontendEntry::zeroed(),
                kept: 0,
                sticks: 0,
            },
            message: Message {
                source: F::Address::zeroed(),
                destination: F::Address::zeroed(),
                l3_offset: 0,
                offset: 0,
                end: 0,
            },
        }
    }
}
