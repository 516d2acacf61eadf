//! Where a program keeps what it is working on.
//!
//! In the kernel this is memory of the CPU, not the stack: 512 bytes would not hold the keys and entries of an IPv6
//! flow, and what is read back from it is unknown to the verifier. The many ways a packet can be parsed then end in one
//! state, and what follows is verified once, not once for each chain of headers.
#![expect(
    unsafe_code,
    reason = "subprograms find the memory by themselves; see `Memory`"
)]
use core::{hint::black_box, marker::PhantomData};

use bytemuck::{Pod, Zeroable};
use lb_common::{BackendId, FlowEntry, FrontendEntry, Tuple, V4, V6};

use crate::bytes::{
    headers::Wire,
    parsed::{Parsed, ParsedMemory},
};

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
    pub has_affinity: u32,
    /// Which try to find a masquerade port this is, from 0 on.
    pub attempt: u32,
    /// Where in the range of ports the search begins.
    pub random: u32,
}

/// The scratch memory of a run, which subprograms use as well: each finds it by itself, not by an argument.
///
/// So no reference to it may live while one of them runs. That is why there is none to be had but through the methods of
/// [`FamilyMemory`], each of which borrows it anew, and why a step takes that whole.
///
/// ```compile_fail
/// # use lb_common::V4;
/// # use lb_ebpf::context::scratch::{FamilyMemory, Scratch};
/// # fn step(_: &mut FamilyMemory<'_, V4>) {}
/// let mut scratch = Scratch::default();
/// let mut whole = scratch.memory();
/// let mut memory = whole.v4();
/// let entries = memory.entries();
/// step(&mut memory);
/// entries.kept = 1; // Borrowed before the step, used after it.
/// ```
pub struct Memory<'a> {
    scratch: *mut Scratch,
    lifetime: PhantomData<&'a mut Scratch>,
}

/// The part of [`Memory`] that is one family's.
pub struct FamilyMemory<'a, F: Wire> {
    scratch: *mut FamilyScratch<F>,
    lifetime: PhantomData<&'a mut FamilyScratch<F>>,
}

impl Memory<'_> {
    /// The memory behind a pointer.
    ///
    /// # Safety
    /// It is valid, aligned and initialised for `'a`. Others use it only while a step runs that was given the
    /// [`FamilyMemory`] of it, by references that end with the step.
    #[inline(always)]
    pub unsafe fn from_pointer(scratch: *mut Scratch) -> Self {
        Self {
            scratch,
            lifetime: PhantomData,
        }
    }
    /// The same memory, of which the compiler does not know what was written: it reads from it again.
    #[inline(always)]
    #[must_use]
    pub fn forget(self) -> Self {
        Self {
            scratch: black_box(self.scratch),
            lifetime: PhantomData,
        }
    }
    /// The part for an IPv4 packet.
    #[inline(always)]
    pub fn v4(&mut self) -> FamilyMemory<'_, V4> {
        FamilyMemory {
            // SAFETY: valid, by the promise at construction; no reference is made.
            scratch: unsafe { &raw mut (*self.scratch).v4 },
            lifetime: PhantomData,
        }
    }
    /// The part for an IPv6 packet.
    #[inline(always)]
    pub fn v6(&mut self) -> FamilyMemory<'_, V6> {
        FamilyMemory {
            // SAFETY: as above.
            scratch: unsafe { &raw mut (*self.scratch).v6 },
            lifetime: PhantomData,
        }
    }
}

impl<F: Wire> FamilyMemory<'_, F> {
    /// All of it.
    #[inline(always)]
    pub fn all(&mut self) -> &mut FamilyScratch<F> {
        // SAFETY: valid, by the promise at the construction of the memory. The reference is the only one: here it borrows
        // `self`, and a subprogram that makes one of its own was called with `self` borrowed for as long as it runs.
        unsafe { &mut *self.scratch }
    }
    /// The packet.
    #[inline(always)]
    pub fn parsed(&self) -> &Parsed<F> {
        // SAFETY: as above; nobody writes while `self` is borrowed.
        unsafe { &(*self.scratch).parsed }
    }
    /// Flow entries at hand.
    #[inline(always)]
    pub fn entries(&mut self) -> &mut Entries<F> {
        &mut self.all().entries
    }
    /// Both.
    #[inline(always)]
    pub fn parts(&mut self) -> (&Parsed<F>, &mut Entries<F>) {
        let FamilyScratch {
            parsed, entries, ..
        } = self.all();
        (parsed, entries)
    }
}

impl<F: Wire> ParsedMemory<F> for FamilyMemory<'_, F> {
    #[inline(always)]
    fn parsed_mut(&mut self) -> &mut Parsed<F> {
        &mut self.all().parsed
    }
}

impl Scratch {
    /// The memory as programs work in it.
    pub fn memory(&mut self) -> Memory<'_> {
        // SAFETY: borrowed for as long as the memory lives, and by nobody else.
        unsafe { Memory::from_pointer(self) }
    }
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
                has_affinity: 0,
                attempt: 0,
                random: 0,
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
