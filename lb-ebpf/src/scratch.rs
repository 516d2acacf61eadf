//! Where a program keeps what it is working on.
//!
//! In the kernel this is memory of the CPU, not the stack: 512 bytes would not hold the keys and entries of an IPv6
//! flow, and what is read back from it is unknown to the verifier. The many ways a packet can be parsed then end in one
//! state, and what follows is verified once, not once for each chain of headers.
use bytemuck::{Pod, Zeroable};
use lb_common::{BackendId, FlowEntry, FrontendEntry, Tuple, V4, V6};

use crate::{headers::Wire, parse::Parsed};

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
        }
    }
}
