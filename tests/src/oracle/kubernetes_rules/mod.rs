//! Kubernetes' rules for Services, written down a second time: from the API's documentation, KEPs 1669, 1860, 2086, 2433
//! and 4444, and what kube-proxy does in nftables mode (v1.36). Nothing here comes from the agent.
//!
//! Plain and slow: each question goes through all objects. A packet passes, in this order, the firewall of load
//! balancers, the dispatch to Services, and, if nobody has translated it, the check of what nobody serves.

mod endpoints;
mod prefix;
pub mod random;
mod service_ports;
mod verdict;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

pub use prefix::{Prefix, parse_address};
pub use verdict::answer;

/// The objects of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// In any order.
    pub services: Vec<Service>,
    /// In any order.
    pub slices: Vec<EndpointSlice>,
}

/// The node that the packet comes to, and how its proxy is set.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name, which endpoints name.
    pub name: String,
    /// Its zone, which hints name.
    pub zone: Option<String>,
    /// Its addresses; the first of a family is the primary one, where node ports are.
    pub addresses: Vec<IpAddr>,
    /// Where pods have their addresses: who is within is a pod of the cluster. One of each family, or none.
    pub cluster_cidrs: Vec<Prefix>,
    /// Where cluster addresses are allocated.
    pub service_cidrs: Vec<Prefix>,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// `externalIPs` are not served.
    pub ignore_external_ips: bool,
}

/// Who sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A pod of this node.
    Pod,
    /// Another machine.
    Outside,
    /// A process of this node.
    Host,
}

/// The first packet of a conversation.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who sends it.
    pub place: Place,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// By whom.
    pub source: SocketAddr,
    /// For whom.
    pub destination: SocketAddr,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One of these gets it.
    Dnat {
        /// Never empty.
        candidates: BTreeSet<SocketAddr>,
        /// Those of them on this node: a packet that goes back to its sender is masqueraded there.
        local: BTreeSet<SocketAddr>,
        /// Whether it gets the node's address as its source, whoever the backend is.
        masquerade: bool,
    },
    /// It is nobody's affair here.
    Pass,
    /// Nobody gets it, and nobody says so.
    Drop,
    /// Nobody gets it, and its sender is told.
    Reject,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// As the API writes it.
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}
