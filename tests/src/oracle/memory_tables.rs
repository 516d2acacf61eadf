//! Tables in memory with the accidents that real maps have: raced, in motion, refused.
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use lb_common::{IpFamily, ServiceEntry};
use lb_ebpf::{
    bytes::headers::Wire,
    memory::{
        instrument::{FamilyInstrument, Instrument, Race},
        tables,
    },
};

pub use lb_ebpf::memory::tables::MemoryFamily;

/// All tables of both families.
pub type MemoryTables = tables::MemoryTables<Faults>;
/// What one family has of its own.
pub type FamilyTables<F> = tables::FamilyTables<F, FamilyFaults<F>>;

/// What happens to tables of both families, and how often they are asked.
#[derive(Default)]
pub struct Faults {
    /// What the next readings of SERVICES give instead, one each: a service in motion.
    pub service_readings: RefCell<VecDeque<ServiceEntry>>,
    /// For each of the next looks at a flow table: whether it finds nothing, for another CPU is about to move the flow.
    pub missed: RefCell<VecDeque<bool>>,
    /// How many looks found nothing so, as far as reads were ordered after them.
    pub misses: Cell<u32>,
    /// And those since.
    unordered_misses: Cell<u32>,
    /// How many lookups were made in tables that cost something.
    pub lookups: Cell<u32>,
}

impl Instrument for Faults {
    type Family<F: Wire> = FamilyFaults<F>;

    fn looked_up(&self) {
        self.lookups.set(self.lookups.get() + 1);
    }
    fn service_reading(&self) -> Option<ServiceEntry> {
        self.service_readings.borrow_mut().pop_front()
    }
    fn misses_flow(&self) -> bool {
        let is_missed = self.missed.borrow_mut().pop_front() == Some(true);
        self.unordered_misses
            .set(self.unordered_misses.get() + u32::from(is_missed));
        is_missed
    }
    fn orders_reads(&self) {
        self.misses
            .set(self.misses.get() + self.unordered_misses.take());
    }
    fn moves(&self) -> u32 {
        self.misses.get()
    }
}

/// What happens to tables of one family.
pub struct FamilyFaults<F: IpFamily> {
    /// The kernel refuses to store in FRAGMENTS.
    pub takes_no_fragments: bool,
    /// The kernel refuses to store in `SOCKET_FLOWS`.
    pub takes_no_socket_flows: bool,
    /// What another CPU does just before our next insert in `OPENING_FLOWS`, one for each insert: it stores an entry there,
    /// or moves it from there to FLOWS. `None` lets an insert through undisturbed.
    pub raced: VecDeque<Option<Race<F>>>,
}

impl<F: IpFamily> Default for FamilyFaults<F> {
    fn default() -> Self {
        Self {
            takes_no_fragments: false,
            takes_no_socket_flows: false,
            raced: VecDeque::new(),
        }
    }
}

impl<F: Wire> FamilyInstrument<F> for FamilyFaults<F> {
    fn refuses_fragments(&self) -> bool {
        self.takes_no_fragments
    }
    fn refuses_socket_flows(&self) -> bool {
        self.takes_no_socket_flows
    }
    fn race(&mut self) -> Option<Race<F>> {
        self.raced.pop_front().flatten()
    }
}
