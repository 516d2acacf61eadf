//! Every map as a static, and which of them belong to a family.
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use lb_common::{
    AffinityEntry, AffinityKey, BackendEntry, DatapathConfig, FlowEntry, FragmentEntry,
    FragmentKey, FrontendEntry, FrontendKey, NetworkFamily, SocketFlowEntry, SocketFlowKey,
    SourceRange, Tuple, V4, V6,
};

macro_rules! declare {
    ($($(#[$doc:meta])* $name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal;)*) => {
        $(declare!(@one $(#[$doc])* $name, $kind, $key, $value, $capacity);)*
    };
    (@one $(#[$doc:meta])* $name:ident, Array, $key:ty, $value:ty, $capacity:literal) => {
        $(#[$doc])* #[map] pub static $name: Array<$value> = Array::with_max_entries($capacity, 0);
    };
    (@one $(#[$doc:meta])* $name:ident, PerCpuArray, $key:ty, $value:ty, $capacity:literal) => {
        $(#[$doc])* #[map] pub static $name: PerCpuArray<$value> = PerCpuArray::with_max_entries($capacity, 0);
    };
    (@one $(#[$doc:meta])* $name:ident, RingBuf, $key:ty, $value:ty, $capacity:literal) => {
        $(#[$doc])* #[map] pub static $name: RingBuf = RingBuf::with_byte_size($capacity, 0);
    };
    (@one $(#[$doc:meta])* $name:ident, $kind:ident, $key:ty, $value:ty, $capacity:literal) => {
        $(#[$doc])* #[map] pub static $name: $kind<$key, $value> = $kind::with_max_entries($capacity, 0);
    };
}
lb_common::for_each_map!(declare);

/// Set by the agent before the programs are loaded: the value here is not what a program reads.
#[unsafe(no_mangle)]
pub static CONFIG: DatapathConfig = DatapathConfig::DEFAULT;

/// Reads one field of CONFIG. Volatile, so that the compiler does not take the value here for the constant it looks
/// like; one field, so that the hot path does not load the others.
macro_rules! config {
    ($field:ident) => {
        // SAFETY: a valid, aligned static.
        unsafe { core::ptr::addr_of!($crate::hooks::maps::CONFIG.$field).read_volatile() }
    };
}
pub(crate) use config;

/// Statics cannot be generic: this says which belong to a family.
pub trait FamilyMaps: NetworkFamily {
    fn frontends() -> &'static HashMap<FrontendKey<Self>, FrontendEntry>;
    fn backends() -> &'static Array<BackendEntry<Self>>;
    fn flows() -> &'static HashMap<Tuple<Self>, FlowEntry<Self>>;
    fn opening_flows() -> &'static LruHashMap<Tuple<Self>, FlowEntry<Self>>;
    fn fragments() -> &'static LruHashMap<FragmentKey<Self>, FragmentEntry<Self>>;
    fn udp_clients() -> &'static LruHashMap<Self::Address, u64>;
    fn socket_flows() -> &'static LruHashMap<SocketFlowKey<Self>, SocketFlowEntry<Self>>;
    fn affinities() -> &'static LruHashMap<AffinityKey<Self>, AffinityEntry>;
    fn source_ranges() -> &'static LpmTrie<SourceRange<Self>, u32>;
}

macro_rules! family_maps {
    ($family:ty: $frontends:ident, $backends:ident, $flows:ident, $opening:ident, $fragments:ident, $clients:ident, $sockets:ident, $affinities:ident, $ranges:ident) => {
        impl FamilyMaps for $family {
            #[inline(always)]
            fn frontends() -> &'static HashMap<FrontendKey<Self>, FrontendEntry> {
                &$frontends
            }
            #[inline(always)]
            fn backends() -> &'static Array<BackendEntry<Self>> {
                &$backends
            }
            #[inline(always)]
            fn flows() -> &'static HashMap<Tuple<Self>, FlowEntry<Self>> {
                &$flows
            }
            #[inline(always)]
            fn opening_flows() -> &'static LruHashMap<Tuple<Self>, FlowEntry<Self>> {
                &$opening
            }
            #[inline(always)]
            fn fragments() -> &'static LruHashMap<FragmentKey<Self>, FragmentEntry<Self>> {
                &$fragments
            }
            #[inline(always)]
            fn udp_clients() -> &'static LruHashMap<Self::Address, u64> {
                &$clients
            }
            #[inline(always)]
            fn socket_flows() -> &'static LruHashMap<SocketFlowKey<Self>, SocketFlowEntry<Self>> {
                &$sockets
            }
            #[inline(always)]
            fn affinities() -> &'static LruHashMap<AffinityKey<Self>, AffinityEntry> {
                &$affinities
            }
            #[inline(always)]
            fn source_ranges() -> &'static LpmTrie<SourceRange<Self>, u32> {
                &$ranges
            }
        }
    };
}
family_maps!(V4: FRONTENDS_V4, BACKENDS_V4, FLOWS_V4, OPENING_FLOWS_V4, FRAGMENTS_V4, UDP_CLIENTS_V4, SOCKET_FLOWS_V4, AFFINITY_V4, SOURCE_RANGES_V4);
family_maps!(V6: FRONTENDS_V6, BACKENDS_V6, FLOWS_V6, OPENING_FLOWS_V6, FRAGMENTS_V6, UDP_CLIENTS_V6, SOCKET_FLOWS_V6, AFFINITY_V6, SOURCE_RANGES_V6);
