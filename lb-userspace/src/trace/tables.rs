//! The tables of one question: the agent's maps, which nobody can write here, and room for the flows that its packets
//! leave. With the question they are gone.
use std::{
    array,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use bytemuck::Zeroable;
use lb_common::{
    AffinityEntry, AffinityKey, BackendEntry, BackendId, BackendState, ClientScope, Counter,
    DatapathConfig, DeviceEntry, FamilyNetworks, FlowEntry, FlowMarks, FragmentEntry, FragmentKey,
    FrontendEntry, FrontendKey, Port, ServiceEntry, ServiceId, SlotEntry, SocketFlowEntry,
    SocketFlowKey, Tuple, V4, V6, hash::address_class,
};
use lb_ebpf::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        environment::{Environment, FlowTable, StoreError},
    },
    memory::clock::MemoryClock,
};

use crate::maps::{MapContents, MapFamily, dump::is_any_port};
use lb_ebpf::memory::flow::MemoryFlow;

/// Room for so many entries of flows. A packet leaves at most four, and two more for each backend that is tried.
const ROOM: usize = 16;

/// The memory of a question's flows: entries stay readable after their removal, as those of a BPF map do for the running
/// program.
pub(super) struct Room {
    v4: [Cell<FlowEntry<V4>>; ROOM],
    v6: [Cell<FlowEntry<V6>>; ROOM],
}

impl Default for Room {
    fn default() -> Self {
        Self {
            v4: array::from_fn(|_| Cell::new(FlowEntry::zeroed())),
            v6: array::from_fn(|_| Cell::new(FlowEntry::zeroed())),
        }
    }
}

/// What the datapath found when it looked something up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// FRONTENDS, of an address that is one.
    Frontend(SocketAddr, FrontendEntry, ClientScope),
    /// SERVICES.
    Service(ServiceId, ServiceEntry),
    /// BACKENDS.
    Backend(BackendId, SocketAddr, BackendState),
}

/// The flows of one family.
pub(super) struct Flows<'a, F: Wire> {
    room: &'a [Cell<FlowEntry<F>>],
    kept: Vec<(FlowTable, Tuple<F>, MemoryFlow<'a, F>)>,
    udp_clients: BTreeMap<F::Address, u64>,
    sockets: BTreeMap<SocketFlowKey<F>, SocketFlowEntry<F>>,
    affinities: BTreeMap<AffinityKey<F>, AffinityEntry>,
}

impl<'a, F: Wire> Flows<'a, F> {
    fn new(room: &'a [Cell<FlowEntry<F>>]) -> Self {
        Self {
            room,
            kept: Vec::new(),
            udp_clients: BTreeMap::new(),
            sockets: BTreeMap::new(),
            affinities: BTreeMap::new(),
        }
    }
    fn get(&self, table: FlowTable, key: &Tuple<F>) -> Option<MemoryFlow<'a, F>> {
        let mut kept = self.kept.iter();
        kept.find(|(its_table, its_key, _)| *its_table == table && its_key == key)
            .map(|(_, _, flow)| *flow)
    }
    fn remove(&mut self, table: FlowTable, key: &Tuple<F>) {
        self.kept
            .retain(|(its_table, its_key, _)| *its_table != table || its_key != key);
    }
    fn store(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError> {
        let (cell, rest) = self.room.split_first().ok_or(StoreError::Refused)?;
        self.room = rest;
        cell.set(*entry);
        self.remove(table, key);
        self.kept.push((table, *key, MemoryFlow::new(cell)));
        Ok(())
    }
}

/// What the datapath may ask while it answers one question.
pub(super) struct QuestionTables<'a> {
    maps: &'a MapContents,
    devices: BTreeMap<u32, DeviceEntry>,
    config: &'a DatapathConfig,
    v4: Flows<'a, V4>,
    v6: Flows<'a, V6>,
    marks: FlowMarks,
    clock: MemoryClock,
    /// What was found, in its order; nothing twice in a row.
    lookups: RefCell<Vec<Lookup>>,
}

impl<'a> QuestionTables<'a> {
    pub(super) fn new(
        maps: &'a MapContents,
        config: &'a DatapathConfig,
        room: &'a Room,
        clock: MemoryClock,
    ) -> Self {
        Self {
            maps,
            devices: BTreeMap::new(),
            config,
            v4: Flows::new(&room.v4),
            v6: Flows::new(&room.v6),
            marks: FlowMarks::zeroed(),
            clock,
            lookups: RefCell::default(),
        }
    }
    /// What DEVICES says of an interface that the packet passes.
    pub(super) fn set_device(&mut self, interface: u32, entry: DeviceEntry) {
        self.devices.insert(interface, entry);
    }
    /// What the datapath has found so far.
    pub(super) fn lookups(&self) -> Vec<Lookup> {
        self.lookups.borrow().clone()
    }
    fn note(&self, lookup: Lookup) {
        let mut lookups = self.lookups.borrow_mut();
        if lookups.last() != Some(&lookup) {
            lookups.push(lookup);
        }
    }
}

/// Where a family keeps its flows.
pub(super) trait QuestionFamily: Wire + MapFamily {
    fn flows<'t, 'a>(tables: &'t QuestionTables<'a>) -> &'t Flows<'a, Self>;
    fn flows_mut<'t, 'a>(tables: &'t mut QuestionTables<'a>) -> &'t mut Flows<'a, Self>;
}
macro_rules! question_family {
    ($family:ty, $field:ident) => {
        impl QuestionFamily for $family {
            fn flows<'t, 'a>(tables: &'t QuestionTables<'a>) -> &'t Flows<'a, Self> {
                &tables.$field
            }
            fn flows_mut<'t, 'a>(tables: &'t mut QuestionTables<'a>) -> &'t mut Flows<'a, Self> {
                &mut tables.$field
            }
        }
    };
}
question_family!(V4, v4);
question_family!(V6, v6);

fn socket_address<A: Into<IpAddr>>(address: A, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), port.number())
}

impl<'a, F: QuestionFamily> Environment<F> for QuestionTables<'a> {
    type Flow = MemoryFlow<'a, F>;

    fn udp_flows_per_client(&self) -> u32 {
        self.config.udp_flows_per_client
    }
    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendEntry> {
        let entry = F::of(self.maps).frontends.get(key).copied()?;
        if is_any_port(key) {
            return Some(entry);
        }
        self.note(Lookup::Frontend(
            socket_address(key.address, key.port),
            entry,
            ClientScope::from_number(key.scope).unwrap_or_default(),
        ));
        Some(entry)
    }
    fn service(&self, id: ServiceId) -> Option<ServiceEntry> {
        // Arrays have every index: what nobody wrote is zero.
        let entry = self.maps.services.get(&id).copied().unwrap_or_default();
        self.note(Lookup::Service(id, entry));
        Some(entry)
    }
    fn slot(&self, index: u32) -> Option<SlotEntry> {
        Some(self.maps.slots.get(&index).copied().unwrap_or_default())
    }
    fn backend(&self, id: BackendId) -> Option<BackendEntry<F>> {
        let nobody = || BackendEntry::new(F::UNSPECIFIED, Port::ZERO, BackendState::Free, 0, 0);
        let written = F::of(self.maps).backends.get(&id).copied();
        let entry = written.unwrap_or_else(nobody);
        let address = socket_address(entry.address, entry.port);
        self.note(Lookup::Backend(id, address, entry.state()));
        Some(entry)
    }
    fn networks(&self) -> Option<&FamilyNetworks<F>> {
        Some(F::of_networks(&self.maps.networks))
    }
    fn is_in_source_range(&self, service_id: ServiceId, client: &F::Address) -> bool {
        F::of(self.maps).is_in_source_range(service_id, *client)
    }
    fn device(&self, interface: u32) -> Option<DeviceEntry> {
        self.devices.get(&interface).copied()
    }
    fn flow(&self, table: FlowTable, key: &Tuple<F>) -> Option<Self::Flow> {
        F::flows(self).get(table, key)
    }
    fn last_move(&self) -> u32 {
        self.marks.last_move
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
        let flows = F::flows_mut(self);
        if flows.get(table, key).is_some() {
            return Err(StoreError::Exists);
        }
        flows.store(table, key, entry)
    }
    fn replace_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError> {
        F::flows_mut(self).store(table, key, entry)
    }
    fn remove_flow(&mut self, table: FlowTable, key: &Tuple<F>) {
        F::flows_mut(self).remove(table, key);
    }
    fn fragment(&self, _key: &FragmentKey<F>) -> Option<FragmentEntry<F>> {
        None
    }
    fn set_fragment(&mut self, _key: &FragmentKey<F>, _entry: &FragmentEntry<F>) -> bool {
        true
    }
    fn udp_client(&self, client: &F::Address) -> u64 {
        let clients = &F::flows(self).udp_clients;
        clients.get(client).copied().unwrap_or_default()
    }
    fn set_udp_client(&mut self, client: &F::Address, window_and_count: u64) {
        let clients = &mut F::flows_mut(self).udp_clients;
        clients.insert(*client, window_and_count);
    }
    fn socket_flow(&self, key: &SocketFlowKey<F>) -> Option<SocketFlowEntry<F>> {
        F::flows(self).sockets.get(key).copied()
    }
    fn set_socket_flow(&mut self, key: &SocketFlowKey<F>, entry: &SocketFlowEntry<F>) -> bool {
        F::flows_mut(self).sockets.insert(*key, *entry);
        true
    }
    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityEntry> {
        F::flows(self).affinities.get(key).copied()
    }
    fn set_affinity(&mut self, key: &AffinityKey<F>, entry: &AffinityEntry) {
        F::flows_mut(self).affinities.insert(*key, *entry);
    }
    // The question's answer says more than a counter.
    fn count(&mut self, _: Counter) {}
    fn now(&self) -> Instant {
        self.clock.instant()
    }
    fn random(&mut self) -> u32 {
        self.clock.random()
    }
}
