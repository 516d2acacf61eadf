//! What the datapath asks of the machine: its maps, the time, and chance. The kernel programs answer with BPF maps and
//! helpers, the host with plain collections.
use lb_common::{
    AffinityEntry, AffinityKey, BackendEntry, BackendId, Counter, DeviceEntry, FamilyNetworks,
    FlowEntry, FlowFlags, FragmentEntry, FragmentKey, FrontendEntry, FrontendKey, IpFamily,
    ServiceEntry, ServiceId, SlotEntry, SocketFlowEntry, SocketFlowKey, Tuple,
};

use crate::context::clock::Instant;

/// Which of the two flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// FLOWS: proven flows, never evicted.
    Proven,
    /// `OPENING_FLOWS`: LRU.
    Opening,
}

/// Why an entry was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The key is taken.
    Exists,
    /// No room, or the kernel refused for another reason.
    Refused,
}

/// A living flow entry. Its identity (key, address, port, backend) never changes in place; the rest changes by single
/// aligned stores, and a store that is lost to another CPU's costs nothing: a time is off by a second, a flag is set
/// again by the next packet that carries it.
pub trait FlowHandle<F: IpFamily> {
    /// The entry as it is; fields that the caller does not use are not read.
    fn entry(&self) -> FlowEntry<F>;
    /// Writes `last_seen`.
    fn set_last_seen(&self, jiffies: u32);
    /// Writes `flags`.
    fn set_flags(&self, flags: FlowFlags);
    /// Writes `epoch`.
    fn set_epoch(&self, epoch: u16);
    /// Writes `expected_ack`, then sets [`FlowFlags::CHALLENGED`] and [`FlowFlags::REPLIED`].
    fn challenge(&self, expected_ack: u32);
}

/// A decision of the datapath, for whoever explains what becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<F: IpFamily> {
    /// The packet or call is for this frontend.
    Frontend(FrontendKey<F>, FrontendEntry),
    /// A backend of this service is to be chosen.
    Service(ServiceId, ServiceEntry),
    /// This backend is chosen, if it is active.
    Backend(BackendId, BackendEntry<F>),
}

/// The tables of one family, what both families share, and the time.
pub trait Environment<F: IpFamily> {
    /// A living entry of a flow table.
    type Flow: FlowHandle<F>;

    /// [`lb_common::DatapathConfig::udp_flows_per_client`].
    fn udp_flows_per_client(&self) -> u32;
    /// Takes so many of the entries of FLOWS that UDP flows may have ([`lb_common::DatapathConfig::udp_flow_entries`]);
    /// false if so many are not left.
    fn take_udp_entries(&mut self, entries: u32) -> bool;
    /// Gives back what was taken and not used.
    fn give_back_udp_entries(&mut self, entries: u32);
    /// FRONTENDS.
    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendEntry>;
    /// `FRONTEND_EPOCH`, the low 16 bits.
    fn frontend_epoch(&self) -> u16;
    /// SERVICES.
    fn service(&self, id: ServiceId) -> Option<ServiceEntry>;
    /// SLOTS, by absolute index.
    fn slot(&self, index: u32) -> Option<SlotEntry>;
    /// BACKENDS.
    fn backend(&self, id: BackendId) -> Option<BackendEntry<F>>;
    /// The family's part of NETWORKS.
    fn networks(&self) -> Option<&FamilyNetworks<F>>;
    /// Whether `SOURCE_RANGES` has a prefix of this service that the client is within.
    fn is_in_source_range(&self, service_id: ServiceId, client: &F::Address) -> bool;
    /// DEVICES, by interface index.
    fn device(&self, interface: u32) -> Option<&DeviceEntry>;

    /// A flow's entry.
    fn flow(&self, table: FlowTable, key: &Tuple<F>) -> Option<Self::Flow>;
    /// [`lb_common::FlowMarks::last_move`], with acquire ordering: what is looked up later is read later.
    fn last_move(&self) -> u32;
    /// What was looked up before is read before what is read from here on, whatever the processor.
    fn order_reads(&self);
    /// Leaves another mark of a move from the opening to the proven flows: after what was stored before, and before what
    /// is removed from here on.
    fn mark_move(&mut self);
    /// [`lb_common::FlowMarks::unlisted`]: whether an opening flow to this destination may be there without a frontend.
    fn may_have_unlisted_flows(&self, destination: &F::Address) -> bool;
    /// Notes that one is.
    fn mark_unlisted_flow(&mut self, destination: &F::Address);
    /// Stores an entry under a free key.
    fn insert_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError>;
    /// Stores an entry, over an older one if need be.
    fn replace_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError>;
    /// Forgets an entry, if it is there.
    fn remove_flow(&mut self, table: FlowTable, key: &Tuple<F>);

    /// FRAGMENTS.
    fn fragment(&self, key: &FragmentKey<F>) -> Option<FragmentEntry<F>>;
    /// Writes FRAGMENTS; false if the kernel refused.
    fn set_fragment(&mut self, key: &FragmentKey<F>, entry: &FragmentEntry<F>) -> bool;

    /// `UDP_CLIENTS`: window start in the high word, flows in the low; zero for a client not seen.
    fn udp_client(&self, client: &F::Address) -> u64;
    /// Writes `UDP_CLIENTS`; losing a race makes the count a little too low.
    fn set_udp_client(&mut self, client: &F::Address, window_and_count: u64);

    /// `SOCKET_FLOWS`.
    fn socket_flow(&self, key: &SocketFlowKey<F>) -> Option<SocketFlowEntry<F>>;
    /// Writes `SOCKET_FLOWS`; false if the kernel refused.
    fn set_socket_flow(&mut self, key: &SocketFlowKey<F>, entry: &SocketFlowEntry<F>) -> bool;

    /// `AFFINITY`.
    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityEntry>;
    /// Writes `AFFINITY`; where the kernel refuses, the client is not remembered.
    fn set_affinity(&mut self, key: &AffinityKey<F>, entry: &AffinityEntry);

    /// Whether the calling thread is one of the agent's with the name [`lb_common::config::API_THREAD`].
    fn is_api_thread(&self) -> bool;

    /// Adds one to a counter.
    fn count(&mut self, counter: Counter);

    /// Hears of a decision; the kernel's programs tell nobody.
    #[inline(always)]
    fn tell(&self, _decision: &Decision<F>) {}

    /// The time.
    fn now(&self) -> Instant;
    /// 32 random bits; asked for new flows only.
    fn random(&mut self) -> u32;
}
