//! An entry of a flow table in memory.
use std::cell::Cell;

use crate::context::environment::FlowHandle;
use lb_common::{FlowEntry, FlowFlags, IpFamily};

/// A living entry. It stays readable after its removal from a table, as an entry of a BPF map does for the running
/// program: who removes it keeps its cell.
#[derive(Clone, Copy, Debug)]
pub struct MemoryFlow<'a, F: IpFamily>(&'a Cell<FlowEntry<F>>);

impl<'a, F: IpFamily> MemoryFlow<'a, F> {
    /// The entry in this cell.
    pub const fn new(cell: &'a Cell<FlowEntry<F>>) -> Self {
        Self(cell)
    }
    fn update(self, change: impl FnOnce(&mut FlowEntry<F>)) {
        let mut entry = self.0.get();
        change(&mut entry);
        self.0.set(entry);
    }
}

impl<F: IpFamily> FlowHandle<F> for MemoryFlow<'_, F> {
    fn entry(&self) -> FlowEntry<F> {
        self.0.get()
    }
    fn set_last_seen(&self, jiffies: u32) {
        self.update(|entry| entry.last_seen = jiffies);
    }
    fn set_flags(&self, flags: FlowFlags) {
        self.update(|entry| entry.flags = flags);
    }
    fn challenge(&self, expected_ack: u32) {
        self.update(|entry| {
            entry.expected_ack = expected_ack;
            entry.flags = entry
                .flags
                .with(FlowFlags::CHALLENGED)
                .with(FlowFlags::REPLIED);
        });
    }
}
