//! What the kernel programs and the agent must agree on: addresses, map keys and values, verdicts, counters.
//!
//! **Byte order, once for all.** Addresses and ports lie in maps exactly as they lie in a packet: network order.
//! [`Port`] keeps its bytes private and shows a host-order number through [`Port::number`] only; addresses are
//! words whose *memory* is the packet's memory. Everything else (ids, counts, jiffies) is in host order. Nothing
//! is swapped anywhere else.
//!
//! The crate knows neither aya nor Kubernetes, and has no feature flags.
#![no_std]
#![warn(missing_docs)]

pub mod pod;

pub mod family;
pub mod port;
pub mod tuple;

pub mod affinity;
pub mod backend;
pub mod device;
pub mod flow;
pub mod fragment;
pub mod frontend;
pub mod networks;
pub mod service;
pub mod slot;
pub mod socket_flow;
pub mod source_range;

pub mod config;
pub mod counter;
pub mod event;
pub mod hash;
pub mod maps;
pub mod verdict;

pub use affinity::{AffinityEntry, AffinityKey};
pub use backend::{BackendEntry, BackendId, BackendState};
pub use config::DatapathConfig;
pub use counter::Counter;
pub use device::{DEVICE_NETWORKS, DeviceEntry, DeviceFlags, DeviceNetwork, NODE_DEVICE_ADDRESS};
pub use event::{Event, Refusal, RefusalKind};
pub use family::{IpFamily, Ipv4Address, Ipv6Address, V4, V6};
pub use flow::{FlowEntry, FlowFlags, FlowMarks, FlowSide};
pub use fragment::{FragmentEntry, FragmentKey};
pub use frontend::{ClientScope, FrontendEntry, FrontendFlags, FrontendKey};
pub use networks::{FamilyNetworks, NetworkFamily, Networks, Prefix};
pub use port::{Port, Protocol};
pub use service::{Algorithm, ServiceEntry, ServiceId, SlotRegion};
pub use slot::SlotEntry;
pub use socket_flow::{SocketFlowEntry, SocketFlowKey};
pub use source_range::SourceRange;
pub use tuple::Tuple;
pub use verdict::{DropReason, PassReason, Translation, Verdict};
