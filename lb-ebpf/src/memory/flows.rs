//! A flow table in memory.
use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use crate::context::environment::{FlowHandle, StoreError};
use lb_common::{FlowEntry, FlowFlags, IpFamily, Tuple};

/// A living entry. It stays readable after its removal from the table, as an entry of a BPF map does for the running
/// program.
#[derive(Clone, Debug)]
pub struct MemoryFlow<F: IpFamily>(Rc<Cell<FlowEntry<F>>>);

impl<F: IpFamily> MemoryFlow<F> {
    fn new(entry: FlowEntry<F>) -> Self {
        Self(Rc::new(Cell::new(entry)))
    }
    fn update(&self, change: impl FnOnce(&mut FlowEntry<F>)) {
        let mut entry = self.0.get();
        change(&mut entry);
        self.0.set(entry);
    }
}

impl<F: IpFamily> FlowHandle<F> for MemoryFlow<F> {
    fn entry(&self) -> FlowEntry<F> {
        self.0.get()
    }
    fn set_last_seen(&self, jiffies: u32) {
        self.update(|entry| entry.last_seen = jiffies);
    }
    fn set_flags(&self, flags: FlowFlags) {
        self.update(|entry| entry.flags = flags);
    }
    fn set_epoch(&self, epoch: u16) {
        self.update(|entry| entry.epoch = epoch);
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

/// One flow table.
pub struct MemoryFlows<F: IpFamily> {
    /// How many entries it holds.
    pub capacity: usize,
    /// Full, it throws out the oldest entry to take a new one.
    pub evicts: bool,
    entries: BTreeMap<Tuple<F>, (u64, MemoryFlow<F>)>,
    ticks: u64,
}

impl<F: IpFamily> MemoryFlows<F> {
    pub(super) fn new(capacity: usize, evicts: bool) -> Self {
        Self {
            capacity,
            evicts,
            entries: BTreeMap::new(),
            ticks: 0,
        }
    }
    /// An entry.
    pub fn get(&self, key: &Tuple<F>) -> Option<FlowEntry<F>> {
        self.entries.get(key).map(|(_, flow)| flow.entry())
    }
    /// A living entry.
    pub(super) fn handle(&self, key: &Tuple<F>) -> Option<MemoryFlow<F>> {
        self.entries.get(key).map(|(_, flow)| flow.clone())
    }
    /// Puts an entry, whatever is there and however full it is.
    pub fn put(&mut self, key: Tuple<F>, entry: FlowEntry<F>) {
        self.ticks += 1;
        self.entries
            .insert(key, (self.ticks, MemoryFlow::new(entry)));
    }
    /// Takes an entry out.
    pub fn remove(&mut self, key: &Tuple<F>) -> Option<FlowEntry<F>> {
        self.entries.remove(key).map(|(_, flow)| flow.entry())
    }
    /// Takes out the entry that stands at this place in the order of keys.
    pub fn evict(&mut self, nth: usize) -> Option<Tuple<F>> {
        let key = *self.entries.keys().nth(nth)?;
        self.remove(&key).map(|_| key)
    }
    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (Tuple<F>, FlowEntry<F>)> {
        self.entries
            .iter()
            .map(|(key, (_, flow))| (*key, flow.entry()))
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub(super) fn store(&mut self, key: &Tuple<F>, entry: &FlowEntry<F>) -> Result<(), StoreError> {
        if !self.entries.contains_key(key) && self.entries.len() >= self.capacity {
            let oldest = self.entries.iter().min_by_key(|(_, (tick, _))| *tick);
            match oldest.map(|(key, _)| *key) {
                Some(oldest) if self.evicts => self.entries.remove(&oldest),
                _ => return Err(StoreError::Refused),
            };
        }
        self.put(*key, *entry);
        Ok(())
    }
}
