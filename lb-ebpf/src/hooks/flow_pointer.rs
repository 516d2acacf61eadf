//! A living entry of a flow table.
use core::ptr;

use lb_common::{FlowEntry, FlowFlags};
use lb_ebpf::context::environment::FlowHandle;

use super::maps::FamilyMaps;

/// A pointer to a value of a flow table. The kernel keeps the memory alive while the program runs (RCU); an entry that
/// is removed meanwhile may be given to another flow at once, so that a late store can touch that flow's time or flags.
/// Both are hints that the flow's own next packet puts right.
#[derive(Clone, Copy)]
pub struct FlowPointer<F: FamilyMaps>(pub *mut FlowEntry<F>);

impl<F: FamilyMaps> FlowHandle<F> for FlowPointer<F> {
    #[inline(always)]
    fn entry(&self) -> FlowEntry<F> {
        // SAFETY: the lookup gave a valid, aligned value; it is copied field by field as needed.
        unsafe { *self.0 }
    }
    #[inline(always)]
    fn set_last_seen(&self, jiffies: u32) {
        // SAFETY: as above; one aligned word.
        unsafe { ptr::addr_of_mut!((*self.0).last_seen).write_volatile(jiffies) }
    }
    #[inline(always)]
    fn set_flags(&self, flags: FlowFlags) {
        // SAFETY: as above; one byte.
        unsafe { ptr::addr_of_mut!((*self.0).flags).write_volatile(flags) }
    }
    #[inline(always)]
    fn set_epoch(&self, epoch: u16) {
        // SAFETY: as above; one aligned half word.
        unsafe { ptr::addr_of_mut!((*self.0).epoch).write_volatile(epoch) }
    }
    #[inline(always)]
    fn challenge(&self, expected_ack: u32) {
        // SAFETY: as above; one aligned word.
        unsafe { ptr::addr_of_mut!((*self.0).expected_ack).write_volatile(expected_ack) };
        let flags = self
            .entry()
            .flags
            .with(FlowFlags::CHALLENGED)
            .with(FlowFlags::REPLIED);
        self.set_flags(flags);
    }
}
