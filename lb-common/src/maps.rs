//! Every map, once: name, kind, key, value, capacity. The kernel makes statics of the list, the agent typed handles,
//! and a test compares both with the object file.

/// Names the layout of all keys and values. It is part of the path the maps are pinned at: programs and maps of
/// different layouts never meet. Bump it with every change of a key, a value or a meaning.
pub const LAYOUT_VERSION: u32 = 7;

/// Calls `$each!` with the list of maps: `NAME: Kind<Key, Value>, capacity;`.
///
/// Arrays are indexed by u32; a ring buffer has no key, and its capacity is in bytes. In the kernel the key of an
/// `LpmTrie` begins with a word more: how many bits of it count.
#[macro_export]
macro_rules! for_each_map {
    ($each:ident) => {
        $each! {
            /// Address, port and protocol to service; half of the entries are for backends' own addresses.
            FRONTENDS_V4: HashMap<$crate::frontend::FrontendKey<$crate::family::V4>, $crate::frontend::FrontendEntry>, 131_072;
            /// The same for IPv6.
            FRONTENDS_V6: HashMap<$crate::frontend::FrontendKey<$crate::family::V6>, $crate::frontend::FrontendEntry>, 131_072;
            /// Service id to what is known of the service.
            SERVICES: Array<u32, $crate::service::ServiceEntry>, 65_536;
            /// Regions of candidates; twice the number of backends, because an old region rests beside the new one.
            SLOTS: Array<u32, $crate::slot::SlotEntry>, 262_144;
            /// Backend id to address.
            BACKENDS_V4: Array<u32, $crate::backend::BackendEntry<$crate::family::V4>>, 65_536;
            /// The same for IPv6.
            BACKENDS_V6: Array<u32, $crate::backend::BackendEntry<$crate::family::V6>>, 65_536;
            /// Proven flows, all directions; aged by the agent.
            FLOWS_V4: HashMap<$crate::tuple::Tuple<$crate::family::V4>, $crate::flow::FlowEntry<$crate::family::V4>>, 262_144;
            /// The same for IPv6.
            FLOWS_V6: HashMap<$crate::tuple::Tuple<$crate::family::V6>, $crate::flow::FlowEntry<$crate::family::V6>>, 262_144;
            /// Flows that have not proven themselves: a flood evicts its own kind only.
            OPENING_FLOWS_V4: LruHashMap<$crate::tuple::Tuple<$crate::family::V4>, $crate::flow::FlowEntry<$crate::family::V4>>, 131_072;
            /// The same for IPv6.
            OPENING_FLOWS_V6: LruHashMap<$crate::tuple::Tuple<$crate::family::V6>, $crate::flow::FlowEntry<$crate::family::V6>>, 131_072;
            /// What a reader of both flow tables must know of them, at index 0.
            FLOW_MARKS: Array<u32, $crate::flow::FlowMarks>, 1;
            /// Datagrams in pieces: what their first fragments became.
            FRAGMENTS_V4: LruHashMap<$crate::fragment::FragmentKey<$crate::family::V4>, $crate::fragment::FragmentEntry<$crate::family::V4>>, 16_384;
            /// The same for IPv6.
            FRAGMENTS_V6: LruHashMap<$crate::fragment::FragmentKey<$crate::family::V6>, $crate::fragment::FragmentEntry<$crate::family::V6>>, 16_384;
            /// Client address to the UDP flows it has moved to FLOWS lately: window start (jiffies) in the high word, count in the low.
            UDP_CLIENTS_V4: LruHashMap<$crate::family::Ipv4Address, u64>, 16_384;
            /// The same for IPv6.
            UDP_CLIENTS_V6: LruHashMap<$crate::family::Ipv6Address, u64>, 16_384;
            /// Socket and backend to what the program dialled.
            SOCKET_FLOWS_V4: LruHashMap<$crate::socket_flow::SocketFlowKey<$crate::family::V4>, $crate::socket_flow::SocketFlowEntry<$crate::family::V4>>, 65_536;
            /// The same for IPv6.
            SOCKET_FLOWS_V6: LruHashMap<$crate::socket_flow::SocketFlowKey<$crate::family::V6>, $crate::socket_flow::SocketFlowEntry<$crate::family::V6>>, 65_536;
            /// Client and service to the backend it was given last, for services that want a client to stay with one.
            AFFINITY_V4: LruHashMap<$crate::affinity::AffinityKey<$crate::family::V4>, $crate::affinity::AffinityEntry>, 65_536;
            /// The same for IPv6.
            AFFINITY_V6: LruHashMap<$crate::affinity::AffinityKey<$crate::family::V6>, $crate::affinity::AffinityEntry>, 65_536;
            /// Interface index to what is known of the device.
            DEVICES: HashMap<u32, $crate::device::DeviceEntry>, 16_384;
            /// Who may dial the load balancer's addresses of services that name them.
            SOURCE_RANGES_V4: LpmTrie<$crate::source_range::SourceRange<$crate::family::V4>, u32>, 65_536;
            /// The same for IPv6.
            SOURCE_RANGES_V6: LpmTrie<$crate::source_range::SourceRange<$crate::family::V6>, u32>, 65_536;
            /// Where pods and Services have their addresses, at index 0.
            NETWORKS: Array<u32, $crate::networks::Networks>, 1;
            /// At index 0, how often frontends were given to other services, or removed: UDP flows compare it with
            /// [`$crate::flow::FlowEntry::epoch`]. The low 16 bits are never 0.
            FRONTEND_EPOCH: Array<u32, u32>, 1;
            /// Timeouts of the ageing program, at index 0.
            AGEING: Array<u32, $crate::config::Timeouts>, 1;
            /// What a program is working on; its layout is the programs' own affair.
            SCRATCH: PerCpuArray<u32, [u64; 64]>, 2;
            /// One u64 a counter and CPU.
            COUNTERS: PerCpuArray<u32, u64>, 64;
            /// When a drop was last written to EVENTS, in jiffies: one u64 a counter and CPU.
            EVENT_TIMES: PerCpuArray<u32, u64>, 64;
            /// A sample of what happens.
            EVENTS: RingBuf<(), $crate::event::Event>, 262_144;
            /// Packets whose senders are to be told that nobody will answer.
            REFUSALS: RingBuf<(), $crate::event::Refusal>, 65_536;
        }
    };
}
