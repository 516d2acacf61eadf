//! The node the agent runs on.
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

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
    /// The addresses of its devices, if somebody has looked: loopback addresses are among them, those of IPv6 that only
    /// hold on one link are not.
    pub local_addresses: BTreeSet<IpAddr>,
    /// Addresses of Services on the device of kube-proxy's ipvs mode. They are not the node's, but what its processes send to
    /// them does not leave it.
    pub ipvs_addresses: BTreeSet<IpAddr>,
    /// Where pods have their addresses; at most one prefix of each family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where this node's pods have theirs: `podCIDRs` of its Node.
    pub pod_cidrs: Vec<IpNet>,
    /// Where `ClusterIPs` are allocated: at most [`SERVICE_PREFIXES`](lb_common::networks::SERVICE_PREFIXES) of each family.
    pub service_cidrs: Vec<IpNet>,
    /// At which addresses node ports are served; empty stands for the primary ones.
    pub nodeport_addresses: Vec<NodePortAddresses>,
    /// Requests to `ClusterIPs` are masqueraded whoever sends them.
    pub masquerade_all: bool,
    /// How pods of this node are told from other senders.
    pub detect_local: DetectLocal,
    /// `externalIPs` of Services are not served.
    pub ignore_external_ips: bool,
    /// Processes of the node can be served at a device.
    pub has_node_device: bool,
}

/// The addresses of a node's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceAddresses {
    /// [`Place::local_addresses`].
    pub local: BTreeSet<IpAddr>,
    /// [`Place::ipvs_addresses`].
    pub of_ipvs: BTreeSet<IpAddr>,
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

    /// Whether the node itself has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.local_addresses.contains(&address)
    }

    /// The node's own address of a family, by which others know it.
    pub fn primary_address(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    }

    /// Whether pods of a family can be told from other senders.
    pub fn knows_pods(&self, family: Family) -> bool {
        let has_one =
            |prefixes: &[IpNet]| prefixes.iter().any(|it| Family::of(it.addr()) == family);
        match self.detect_local {
            DetectLocal::ClusterCidr => has_one(&self.cluster_cidrs),
            DetectLocal::NodeCidr => has_one(&self.pod_cidrs),
            DetectLocal::Bridge(_) | DetectLocal::InterfacePrefix(_) => true,
            DetectLocal::None => false,
        }
    }

    /// Where load balancers ask about a Service, of one family. If node ports are served at all addresses, that is the
    /// unspecified one: an address that is only routed to the node, on no device of it, answers as well.
    pub fn health_check_addresses(&self, family: Family) -> BTreeSet<IpAddr> {
        let is_all = |some: &NodePortAddresses| match some {
            NodePortAddresses::All => true,
            NodePortAddresses::Within(it) => {
                it.prefix_len() == 0 && Family::of(it.addr()) == family
            }
            NodePortAddresses::Primary | NodePortAddresses::Localhost => false,
        };
        let served = self.node_port_addresses(family);
        if served.is_empty() || !self.nodeport_addresses.iter().any(is_all) {
            return served;
        }
        BTreeSet::from([match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }])
    }

    /// Where node ports are served, of one family.
    pub fn node_port_addresses(&self, family: Family) -> BTreeSet<IpAddr> {
        let primary = self.primary_address(family);
        if self.nodeport_addresses.is_empty() {
            return primary.into_iter().collect();
        }
        let localhost = match family {
            Family::V4 => IpAddr::from(Ipv4Addr::LOCALHOST),
            Family::V6 => IpAddr::from(Ipv6Addr::LOCALHOST),
        };
        let own = self.addresses.iter().chain(&self.local_addresses).copied();
        // Where IPv6 is off, no device has ::1.
        let knows_no_device = self.local_addresses.is_empty();
        let known = own.chain(knows_no_device.then_some(localhost));
        let wanted = |address: &IpAddr| {
            let is_wanted = |some: &NodePortAddresses| match some {
                NodePortAddresses::Primary => Some(*address) == primary,
                NodePortAddresses::Localhost => *address == localhost,
                NodePortAddresses::All => !address.is_loopback(),
                NodePortAddresses::Within(prefix) => {
                    prefix.contains(address) && address.is_loopback() == prefix.addr().is_loopback()
                }
            };
            Family::of(*address) == family && self.nodeport_addresses.iter().any(is_wanted)
        };
        known.filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::NodePortAddresses::{All, Localhost, Primary, Within};
    use super::*;

    #[test]
    fn node_ports_are_served_where_words_and_prefixes_say() {
        let list = |text: &str| -> Vec<IpAddr> {
            text.split_whitespace()
                .map(|it| it.parse().unwrap())
                .collect()
        };
        let within = |text: &str| Within(text.parse().unwrap());
        let cases = [
            (vec![], "192.0.2.1", "2001:db8::1"),
            (vec![Primary], "192.0.2.1", "2001:db8::1"),
            (vec![Localhost], "127.0.0.1", "::1"),
            (vec![All], "10.0.0.1 192.0.2.1 192.0.2.2", "2001:db8::1"),
            (
                vec![Localhost, Primary],
                "127.0.0.1 192.0.2.1",
                "::1 2001:db8::1",
            ),
            (vec![within("192.0.2.0/24")], "192.0.2.1 192.0.2.2", ""),
            (
                vec![within("0.0.0.0/0")],
                "10.0.0.1 192.0.2.1 192.0.2.2",
                "",
            ),
            (vec![within("127.0.0.0/8")], "127.0.0.1 127.0.0.53", ""),
            (
                vec![within("10.0.0.0/8"), Primary],
                "10.0.0.1 192.0.2.1",
                "2001:db8::1",
            ),
            (vec![within("::/0")], "", "2001:db8::1"),
            (vec![within("198.51.100.0/24")], "", ""),
        ];
        for (nodeport_addresses, v4, v6) in cases {
            let place = Place {
                addresses: list("192.0.2.1 2001:db8::1 192.0.2.2"),
                local_addresses: list("10.0.0.1 127.0.0.1 127.0.0.53 192.0.2.1 ::1 2001:db8::1")
                    .into_iter()
                    .collect(),
                nodeport_addresses,
                ..Place::default()
            };
            let served = Family::ALL.map(|family| place.node_port_addresses(family));
            let expected = [v4, v6].map(|text| list(text).into_iter().collect());
            assert_eq!(served, expected, "{:?}", place.nodeport_addresses);
        }
    }

    #[test]
    fn health_checks_are_answered_everywhere_if_node_ports_are() {
        let place = |nodeport_addresses: Vec<NodePortAddresses>| Place {
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            local_addresses: ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()].into(),
            nodeport_addresses,
            ..Place::default()
        };
        for (nodeport_addresses, v4, v6) in [
            (vec![], "192.0.2.1", "2001:db8::1"),
            (vec![All], "0.0.0.0", "::"),
            (
                vec![Within("0.0.0.0/0".parse().unwrap()), Primary],
                "0.0.0.0",
                "2001:db8::1",
            ),
            (
                vec![Within("192.0.2.0/24".parse().unwrap()), Primary],
                "192.0.2.1",
                "2001:db8::1",
            ),
        ] {
            let place = place(nodeport_addresses);
            let asked = Family::ALL.map(|family| place.health_check_addresses(family));
            let expected = [v4, v6].map(|it| BTreeSet::from([it.parse().unwrap()]));
            assert_eq!(asked, expected, "{:?}", place.nodeport_addresses);
        }
    }
}
