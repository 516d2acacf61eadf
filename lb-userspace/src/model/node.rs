//! The node the agent runs on.
use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::model::Family;

/// Where clients of this agent are, and what is said of the node by flags: endpoints can be local to them, or meant for
/// them; addresses and prefixes decide where node ports are served and whose requests are masqueraded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the node.
    pub node: String,
    /// Its zone, if known: the label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The node's own addresses as its Node or flags name them. The first of each family is the primary one.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its devices, if somebody has looked; loopback addresses among them.
    pub local_addresses: BTreeSet<IpAddr>,
    /// Where pods have their addresses; at most one prefix of each family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where this node's pods have theirs: `podCIDRs` of its Node.
    pub pod_cidrs: Vec<IpNet>,
    /// Where `ClusterIPs` are allocated.
    pub service_cidrs: Vec<IpNet>,
    /// At which addresses node ports are served; empty stands for the primary ones.
    pub nodeport_addresses: Vec<NodePortAddresses>,
    /// Requests to `ClusterIPs` are masqueraded whoever sends them.
    pub masquerade_all: bool,
    /// How pods of this node are told from other senders.
    pub detect_local: DetectLocal,
    /// `externalIPs` of Services are not served.
    pub ignore_external_ips: bool,
}

/// Some of a node's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePortAddresses {
    /// The primary one of each family.
    Primary,
    /// Loopback: 127.0.0.1 and `::1`.
    Localhost,
    /// All that the node's devices have, but for loopback.
    All,
    /// Those within a prefix. A loopback address is only in a prefix of loopback addresses.
    Within(IpNet),
}

/// How pods of this node are told from other senders (kube-proxy's `detectLocalMode`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DetectLocal {
    /// By a source address in [`Place::cluster_cidrs`].
    #[default]
    ClusterCidr,
    /// By a source address in [`Place::pod_cidrs`].
    NodeCidr,
    /// By the bridge they come from.
    Bridge(String),
    /// By the beginning of the name of the device they come from.
    InterfacePrefix(String),
    /// Not at all.
    None,
}

/// What the own Node object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone, if it is in one.
    pub zone: Option<String>,
    /// Its own addresses: the first of each family, internal ones before external ones.
    pub addresses: Vec<IpAddr>,
    /// Where its pods have their addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether it is being deleted or carries the cluster autoscaler's taint.
    pub leaving: bool,
}

impl Place {
    /// The same place as its Node describes it, which counts where it says something.
    #[must_use]
    pub fn described_by(&self, node: &Node) -> Self {
        let says_nothing_of = |address: &&IpAddr| {
            let mut known = node.addresses.iter();
            known.all(|known| Family::of(*known) != Family::of(**address))
        };
        let others = self.addresses.iter().filter(says_nothing_of);
        Self {
            node: node.name.clone(),
            zone: node.zone.clone().or_else(|| self.zone.clone()),
            addresses: node.addresses.iter().chain(others).copied().collect(),
            pod_cidrs: node.pod_cidrs.clone(),
            ..self.clone()
        }
    }

    /// The node's own address of a family, by which others know it.
    pub fn primary_address(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    }
}
