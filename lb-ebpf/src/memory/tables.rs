//! The tables as plain collections.
use std::{collections::BTreeMap, net::IpAddr};

use bytemuck::Zeroable as _;
use ipnet::IpNet;
use lb_common::{
    AffinityEntry, AffinityKey, BackendEntry, BackendId, Counter, DatapathConfig, DeviceEntry,
    FamilyNetworks, FlowEntry, FlowMarks, FragmentEntry, FragmentKey, FrontendEntry, FrontendKey,
    IpFamily, NetworkFamily, Networks, ServiceEntry, ServiceId, SlotEntry, SocketFlowEntry,
    SocketFlowKey, Tuple, V4, V6, hash::address_class,
};

use super::{
    clock::MemoryClock,
    flows::{MemoryFlow, MemoryFlows},
    instrument::{FamilyInstrument as _, Instrument},
};
use crate::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        environment::{Decision, Environment, FlowTable, StoreError},
    },
};

/// What one family has of its own.
pub struct FamilyTables<F: IpFamily, I> {
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
    /// `UDP_CLIENTS`.
    pub udp_clients: BTreeMap<F::Address, u64>,
    /// `SOCKET_FLOWS`.
    pub socket_flows: BTreeMap<SocketFlowKey<F>, SocketFlowEntry<F>>,
    /// `AFFINITY`.
    pub affinities: BTreeMap<AffinityKey<F>, AffinityEntry>,
    /// What is fitted into them.
    pub instrument: I,
}

impl<F: IpFamily, I: Default> Default for FamilyTables<F, I> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            proven: MemoryFlows::new(1 << 20, false),
            opening: MemoryFlows::new(1 << 20, true),
            fragments: BTreeMap::new(),
            udp_clients: BTreeMap::new(),
            socket_flows: BTreeMap::new(),
            affinities: BTreeMap::new(),
            instrument: I::default(),
        }
    }
}

impl<F: IpFamily, I> FamilyTables<F, I> {
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
pub struct MemoryTables<I: Instrument = ()> {
    /// IPv4's own.
    pub v4: FamilyTables<V4, I::Family<V4>>,
    /// IPv6's own.
    pub v6: FamilyTables<V6, I::Family<V6>>,
    /// SERVICES.
    pub services: BTreeMap<ServiceId, ServiceEntry>,
    /// SLOTS.
    pub slots: BTreeMap<u32, SlotEntry>,
    /// NETWORKS.
    pub networks: Networks,
    /// `FRONTEND_EPOCH`.
    pub frontend_epoch: u32,
    /// Calls come from the agent's own threads.
    pub is_api_thread: bool,
    /// `SOURCE_RANGES` of both families.
    pub source_ranges: Vec<(ServiceId, IpNet)>,
    /// DEVICES.
    pub devices: BTreeMap<u32, DeviceEntry>,
    /// The node's constants.
    pub config: DatapathConfig,
    /// COUNTERS; what never happened is not in it.
    pub counters: BTreeMap<Counter, u64>,
    /// `FLOW_MARKS`.
    pub marks: FlowMarks,
    /// The time, and chance.
    pub clock: MemoryClock,
    /// What is fitted into the tables.
    pub instrument: I,
}

impl<I: Instrument> Default for MemoryTables<I> {
    fn default() -> Self {
        // No address is all ones and anything else: nobody's is around Services.
        let mut networks = Networks::default();
        networks.v4.around_services.network = [u8::MAX; 4].into();
        networks.v6.around_services.network = [u8::MAX; 16].into();
        Self {
            v4: FamilyTables::default(),
            v6: FamilyTables::default(),
            services: BTreeMap::new(),
            slots: BTreeMap::new(),
            networks,
            frontend_epoch: 1,
            is_api_thread: false,
            source_ranges: Vec::new(),
            devices: BTreeMap::new(),
            config: DatapathConfig::DEFAULT,
            counters: BTreeMap::new(),
            marks: FlowMarks::zeroed(),
            clock: MemoryClock::new(1),
            instrument: I::default(),
        }
    }
}

impl<I: Instrument> MemoryTables<I> {
    /// How often something was counted.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or_default()
    }
    /// How many entries of FLOWS UDP flows of a family have taken.
    pub fn udp_entries<F: Wire>(&mut self) -> &mut u32 {
        let [v4, v6] = &mut self.marks.udp_entries;
        if F::VERSION == 4 { v4 } else { v6 }
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
}

/// Where a family keeps its own tables: lets one `impl` serve both.
pub trait MemoryFamily: Wire + NetworkFamily {
    /// A backend that nobody wrote.
    fn nobody() -> BackendEntry<Self>;
    /// The family's own tables.
    fn own<I: Instrument>(tables: &MemoryTables<I>) -> &FamilyTables<Self, I::Family<Self>>;
    /// The same to change them.
    fn own_mut<I: Instrument>(
        tables: &mut MemoryTables<I>,
    ) -> &mut FamilyTables<Self, I::Family<Self>>;
}
macro_rules! memory_family {
    ($family:ty, $field:ident) => {
        impl MemoryFamily for $family {
            fn nobody() -> BackendEntry<Self> {
                bytemuck::Zeroable::zeroed()
            }
            fn own<I: Instrument>(
                tables: &MemoryTables<I>,
            ) -> &FamilyTables<Self, I::Family<Self>> {
                &tables.$field
            }
            fn own_mut<I: Instrument>(
                tables: &mut MemoryTables<I>,
            ) -> &mut FamilyTables<Self, I::Family<Self>> {
                &mut tables.$field
            }
        }
    };
}
memory_family!(V4, v4);
memory_family!(V6, v6);

impl<F: MemoryFamily, I: Instrument> Environment<F> for MemoryTables<I> {
    type Flow = MemoryFlow<F>;

    fn udp_flows_per_client(&self) -> u32 {
        self.config.udp_flows_per_client
    }
    fn take_udp_entries(&mut self, entries: u32) -> bool {
        let most = self.config.udp_flow_entries;
        let taken = self.udp_entries::<F>();
        let is_within = taken.saturating_add(entries) <= most;
        if is_within {
            *taken += entries;
        }
        is_within
    }
    fn give_back_udp_entries(&mut self, entries: u32) {
        *self.udp_entries::<F>() -= entries;
    }
    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendEntry> {
        self.instrument.looked_up();
        F::own(self).frontends.get(key).copied()
    }
    fn service(&self, id: ServiceId) -> Option<ServiceEntry> {
        let reading = self.instrument.service_reading();
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
    fn is_api_thread(&self) -> bool {
        self.is_api_thread
    }
    fn frontend_epoch(&self) -> u16 {
        (self.frontend_epoch & 0xffff) as u16
    }
    fn networks(&self) -> Option<&FamilyNetworks<F>> {
        Some(F::of_networks(&self.networks))
    }
    fn is_in_source_range(&self, service_id: ServiceId, client: &F::Address) -> bool {
        self.instrument.looked_up();
        let client: IpAddr = (*client).into();
        let mut ranges = self.source_ranges.iter();
        ranges.any(|(id, range)| *id == service_id && range.contains(&client))
    }
    fn device(&self, interface: u32) -> Option<&DeviceEntry> {
        self.instrument.looked_up();
        self.devices.get(&interface)
    }
    fn flow(&self, table: FlowTable, key: &Tuple<F>) -> Option<Self::Flow> {
        self.instrument.looked_up();
        if self.instrument.misses_flow() {
            return None;
        }
        F::own(self).flows(table).handle(key)
    }
    fn last_move(&self) -> u32 {
        self.marks.last_move + self.instrument.moves()
    }
    fn order_reads(&self) {
        self.instrument.orders_reads();
    }
    fn mark_move(&mut self) {
        self.marks.last_move += 1;
    }
    fn may_have_unlisted_flows(&self, destination: &F::Address) -> bool {
        let class = address_class(destination.as_ref());
        self.marks
            .unlisted
            .get(class)
            .is_some_and(|mark| *mark != 0)
    }
    fn mark_unlisted_flow(&mut self, destination: &F::Address) {
        let class = address_class(destination.as_ref());
        if let Some(mark) = self.marks.unlisted.get_mut(class) {
            *mark = 1;
        }
    }
    fn insert_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError> {
        let own = F::own_mut(self);
        if table == FlowTable::Opening
            && let Some((table, key, entry)) = own.instrument.race()
        {
            own.opening.remove(&key);
            own.flows_mut(table).put(key, entry);
        }
        let flows = own.flows_mut(table);
        if flows.get(key).is_some() {
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
        F::own_mut(self).flows_mut(table).remove(key);
    }
    fn fragment(&self, key: &FragmentKey<F>) -> Option<FragmentEntry<F>> {
        self.instrument.looked_up();
        F::own(self).fragments.get(key).copied()
    }
    fn set_fragment(&mut self, key: &FragmentKey<F>, entry: &FragmentEntry<F>) -> bool {
        let own = F::own_mut(self);
        let refuses = own.instrument.refuses_fragments();
        if !refuses {
            own.fragments.insert(*key, *entry);
        }
        !refuses
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
        let refuses = own.instrument.refuses_socket_flows();
        if !refuses {
            own.socket_flows.insert(*key, *entry);
        }
        !refuses
    }
    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityEntry> {
        self.instrument.looked_up();
        F::own(self).affinities.get(key).copied()
    }
    fn set_affinity(&mut self, key: &AffinityKey<F>, entry: &AffinityEntry) {
        F::own_mut(self).affinities.insert(*key, *entry);
    }
    fn count(&mut self, counter: Counter) {
        *self.counters.entry(counter).or_default() += 1;
    }
    fn tell(&self, decision: &Decision<F>) {
        self.instrument.decided(decision);
    }
    fn now(&self) -> Instant {
        self.clock.instant()
    }
    fn random(&mut self) -> u32 {
        self.clock.random()
    }
}
