//! The tables as plain collections, with the accidents that real maps have: full, evicted, raced.
mod contents;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use bytemuck::Zeroable as _;
use ipnet::IpNet;
use lb_common::{
    AffinityEntry, AffinityKey, BackendEntry, BackendId, Counter, DatapathConfig, DeviceEntry,
    FamilyNetworks, FlowEntry, FlowMarks, FragmentEntry, FragmentKey, FrontendEntry, FrontendKey,
    IpFamily, NetworkFamily, Networks, ServiceEntry, ServiceId, SlotEntry, SocketFlowEntry,
    SocketFlowKey, Tuple, V4, V6, hash::address_class,
};
use lb_ebpf::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        environment::{Environment, FlowHandle, FlowTable, StoreError},
    },
    memory::clock::MemoryClock,
};

/// A living entry; its cell is leaked (at most 44 bytes a flow, in a test).
type MemoryFlow<F> = lb_ebpf::memory::flow::MemoryFlow<'static, F>;

fn leaked<F: IpFamily>(entry: FlowEntry<F>) -> MemoryFlow<F> {
    MemoryFlow::new(Box::leak(Box::new(Cell::new(entry))))
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
    fn new(capacity: usize, evicts: bool) -> Self {
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
    /// Puts an entry, whatever is there and however full it is.
    pub fn put(&mut self, key: Tuple<F>, entry: FlowEntry<F>) {
        self.ticks += 1;
        self.entries.insert(key, (self.ticks, leaked(entry)));
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
    fn store(&mut self, key: &Tuple<F>, entry: &FlowEntry<F>) -> Result<(), StoreError> {
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

/// What one family has of its own.
pub struct FamilyTables<F: IpFamily> {
    /// FRONTENDS.
    pub frontends: BTreeMap<FrontendKey<F>, FrontendEntry>,
    /// BACKENDS.
    pub backends: BTreeMap<BackendId, BackendEntry<F>>,
    /// FLOWS.
    pub proven: MemoryFlows<F>,
    /// `OPENING_FLOWS`.
    pub opening: MemoryFlows<F>,
    /// FRAGMENTS.
    pub fragments: BTreeMap<FragmentKey<F>, FragmentEntry<F>>,
    /// The kernel refuses to store in FRAGMENTS.
    pub takes_no_fragments: bool,
    /// `UDP_CLIENTS`.
    pub udp_clients: BTreeMap<F::Address, u64>,
    /// `SOCKET_FLOWS`.
    pub socket_flows: BTreeMap<SocketFlowKey<F>, SocketFlowEntry<F>>,
    /// `AFFINITY`.
    pub affinities: BTreeMap<AffinityKey<F>, AffinityEntry>,
    /// The kernel refuses to store in `SOCKET_FLOWS`.
    pub takes_no_socket_flows: bool,
    /// What another CPU stores in `OPENING_FLOWS` just before our next insert there, one for each insert; `None` lets
    /// an insert through undisturbed.
    pub raced: VecDeque<Option<(Tuple<F>, FlowEntry<F>)>>,
}

impl<F: IpFamily> Default for FamilyTables<F> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            proven: MemoryFlows::new(1 << 20, false),
            opening: MemoryFlows::new(1 << 20, true),
            fragments: BTreeMap::new(),
            takes_no_fragments: false,
            udp_clients: BTreeMap::new(),
            socket_flows: BTreeMap::new(),
            affinities: BTreeMap::new(),
            takes_no_socket_flows: false,
            raced: VecDeque::new(),
        }
    }
}

impl<F: IpFamily> FamilyTables<F> {
    /// A flow table.
    pub fn flows(&self, table: FlowTable) -> &MemoryFlows<F> {
        match table {
            FlowTable::Proven => &self.proven,
            FlowTable::Opening => &self.opening,
        }
    }
    /// A flow table, to change it.
    pub fn flows_mut(&mut self, table: FlowTable) -> &mut MemoryFlows<F> {
        match table {
            FlowTable::Proven => &mut self.proven,
            FlowTable::Opening => &mut self.opening,
        }
    }
}

/// All tables of both families.
pub struct MemoryTables {
    /// IPv4's own.
    pub v4: FamilyTables<V4>,
    /// IPv6's own.
    pub v6: FamilyTables<V6>,
    /// SERVICES.
    pub services: BTreeMap<ServiceId, ServiceEntry>,
    /// What the next readings of SERVICES give instead, one each: a service in motion.
    pub service_readings: RefCell<VecDeque<ServiceEntry>>,
    /// SLOTS.
    pub slots: BTreeMap<u32, SlotEntry>,
    /// NETWORKS.
    pub networks: Networks,
    /// `SOURCE_RANGES` of both families.
    pub source_ranges: Vec<(ServiceId, IpNet)>,
    /// DEVICES.
    pub devices: BTreeMap<u32, DeviceEntry>,
    /// The node's constants.
    pub config: DatapathConfig,
    /// COUNTERS; what never happened is not in it.
    pub counters: BTreeMap<Counter, u64>,
    /// How many lookups were made in tables that cost something: all but the arrays SERVICES, SLOTS and BACKENDS.
    pub lookups: Cell<u32>,
    /// `FLOW_MARKS`.
    pub marks: FlowMarks,
    /// The time, and chance.
    pub clock: MemoryClock,
    /// For each of the next looks at a flow table: whether it finds nothing, for another CPU is about to move the flow.
    pub missed: RefCell<VecDeque<bool>>,
    /// How many looks found nothing so.
    pub misses: Cell<u32>,
}

impl Default for MemoryTables {
    fn default() -> Self {
        // No address is all ones and anything else: nobody's is around Services.
        let mut networks = Networks::default();
        networks.v4.around_services.network = [u8::MAX; 4].into();
        networks.v6.around_services.network = [u8::MAX; 16].into();
        Self {
            v4: FamilyTables::default(),
            v6: FamilyTables::default(),
            services: BTreeMap::new(),
            service_readings: RefCell::default(),
            slots: BTreeMap::new(),
            networks,
            source_ranges: Vec::new(),
            devices: BTreeMap::new(),
            config: DatapathConfig::DEFAULT,
            counters: BTreeMap::new(),
            lookups: Cell::new(0),
            marks: FlowMarks::zeroed(),
            clock: MemoryClock::new(1),
            missed: RefCell::default(),
            misses: Cell::new(0),
        }
    }
}

impl MemoryTables {
    /// How often something was counted.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or_default()
    }
    /// Makes `backends` the candidates of a service, in a region that starts at `start`.
    pub fn set_slots(&mut self, service_id: ServiceId, start: u32, backends: &[BackendId]) {
        for (index, backend_id) in (start..).zip(backends) {
            let slot = SlotEntry {
                backend_id: *backend_id,
                service_id,
            };
            self.slots.insert(index, slot);
        }
        let length = u32::try_from(backends.len()).unwrap_or(u32::MAX);
        let entry = self.services.entry(service_id).or_default();
        entry.slots = lb_common::SlotRegion::new(start, length);
    }
    fn looked_up(&self) {
        self.lookups.set(self.lookups.get() + 1);
    }
}

/// Where a family keeps its own tables: lets one `impl` serve both.
pub trait MemoryFamily: Wire + NetworkFamily {
    /// A backend that nobody wrote.
    fn nobody() -> BackendEntry<Self>;
    /// The family's own tables.
    fn own(tables: &MemoryTables) -> &FamilyTables<Self>;
    /// The same to change them.
    fn own_mut(tables: &mut MemoryTables) -> &mut FamilyTables<Self>;
}
macro_rules! memory_family {
    ($family:ty, $field:ident) => {
        impl MemoryFamily for $family {
            fn nobody() -> BackendEntry<Self> {
                bytemuck::Zeroable::zeroed()
            }
            fn own(tables: &MemoryTables) -> &FamilyTables<Self> {
                &tables.$field
            }
            fn own_mut(tables: &mut MemoryTables) -> &mut FamilyTables<Self> {
                &mut tables.$field
            }
        }
    };
}
memory_family!(V4, v4);
memory_family!(V6, v6);

impl<F: MemoryFamily> Environment<F> for MemoryTables {
    type Flow = MemoryFlow<F>;

    fn udp_flows_per_client(&self) -> u32 {
        self.config.udp_flows_per_client
    }
    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendEntry> {
        self.looked_up();
        F::own(self).frontends.get(key).copied()
    }
    fn service(&self, id: ServiceId) -> Option<ServiceEntry> {
        let reading = self.service_readings.borrow_mut().pop_front();
        // Arrays have every index: what nobody wrote is zero.
        let written = self.services.get(&id).copied();
        Some(reading.or(written).unwrap_or_default())
    }
    fn slot(&self, index: u32) -> Option<SlotEntry> {
        Some(self.slots.get(&index).copied().unwrap_or_default())
    }
    fn backend(&self, id: BackendId) -> Option<BackendEntry<F>> {
        let written = F::own(self).backends.get(&id).copied();
        Some(written.unwrap_or_else(F::nobody))
    }
    fn networks(&self) -> Option<&FamilyNetworks<F>> {
        Some(F::of_networks(&self.networks))
    }
    fn is_in_source_range(&self, service_id: ServiceId, client: &F::Address) -> bool {
        self.looked_up();
        let client: IpAddr = (*client).into();
        let mut ranges = self.source_ranges.iter();
        ranges.any(|(id, range)| *id == service_id && range.contains(&client))
    }
    fn device(&self, interface: u32) -> Option<DeviceEntry> {
        self.looked_up();
        self.devices.get(&interface).copied()
    }
    fn flow(&self, table: FlowTable, key: &Tuple<F>) -> Option<Self::Flow> {
        self.looked_up();
        if self.missed.borrow_mut().pop_front() == Some(true) {
            self.misses.set(self.misses.get() + 1);
            return None;
        }
        let flows = F::own(self).flows(table);
        flows.entries.get(key).map(|(_, flow)| *flow)
    }
    fn last_move(&self) -> u32 {
        self.marks.last_move + self.misses.get()
    }
    fn mark_move(&mut self) {
        self.marks.last_move += 1;
    }
    fn has_lodgers(&self, destination: &F::Address) -> bool {
        self.marks.lodgers[address_class(destination.as_ref())] != 0
    }
    fn mark_lodger(&mut self, destination: &F::Address) {
        self.marks.lodgers[address_class(destination.as_ref())] = 1;
    }
    fn insert_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError> {
        let own = F::own_mut(self);
        if table == FlowTable::Opening
            && let Some(Some((key, entry))) = own.raced.pop_front()
        {
            own.opening.put(key, entry);
        }
        let flows = own.flows_mut(table);
        if flows.entries.contains_key(key) {
            return Err(StoreError::Exists);
        }
        flows.store(key, entry)
    }
    fn replace_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError> {
        F::own_mut(self).flows_mut(table).store(key, entry)
    }
    fn remove_flow(&mut self, table: FlowTable, key: &Tuple<F>) {
        F::own_mut(self).flows_mut(table).entries.remove(key);
    }
    fn fragment(&self, key: &FragmentKey<F>) -> Option<FragmentEntry<F>> {
        self.looked_up();
        F::own(self).fragments.get(key).copied()
    }
    fn set_fragment(&mut self, key: &FragmentKey<F>, entry: &FragmentEntry<F>) -> bool {
        let own = F::own_mut(self);
        if !own.takes_no_fragments {
            own.fragments.insert(*key, *entry);
        }
        !own.takes_no_fragments
    }
    fn udp_client(&self, client: &F::Address) -> u64 {
        let clients = &F::own(self).udp_clients;
        clients.get(client).copied().unwrap_or_default()
    }
    fn set_udp_client(&mut self, client: &F::Address, window_and_count: u64) {
        let clients = &mut F::own_mut(self).udp_clients;
        clients.insert(*client, window_and_count);
    }
    fn socket_flow(&self, key: &SocketFlowKey<F>) -> Option<SocketFlowEntry<F>> {
        F::own(self).socket_flows.get(key).copied()
    }
    fn set_socket_flow(&mut self, key: &SocketFlowKey<F>, entry: &SocketFlowEntry<F>) -> bool {
        let own = F::own_mut(self);
        if !own.takes_no_socket_flows {
            own.socket_flows.insert(*key, *entry);
        }
        !own.takes_no_socket_flows
    }
    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityEntry> {
        self.looked_up();
        F::own(self).affinities.get(key).copied()
    }
    fn set_affinity(&mut self, key: &AffinityKey<F>, entry: &AffinityEntry) {
        F::own_mut(self).affinities.insert(*key, *entry);
    }
    fn count(&mut self, counter: Counter) {
        *self.counters.entry(counter).or_default() += 1;
    }
    fn now(&self) -> Instant {
        self.clock.instant()
    }
    fn random(&mut self) -> u32 {
        self.clock.random()
    }
}
