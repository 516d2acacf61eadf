//! One of two like networks: the same nodes, pods and addresses, in namespaces of their own.
//!
//! ```text
//!   stranger 192.168.77.50 ──┐
//!   outside 192.168.77.1 ── bridge ──┬── node1 ── client, a1, a2, a3
//!        │                           └── node2 ── b1, b2, b3
//!   control plane 198.18.0.1 (only outside sees it, and translates the nodes' sources)
//! ```
//! Who is sent to an address that is nobody's hears so from `outside`. The stranger sends what is for Services to node 1.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use super::answerer::Answerer;
use super::question::Place;
use crate::cluster::topology::{Cluster, Pod, PodNetwork};
use crate::machine::netns::Namespace;

/// Where the control plane is, as seen by both sides.
pub(super) const CONTROL_PLANE: &str = "198.18.0.1";

/// The pod that asks as [`Place::Backend`].
pub(super) const BACKEND: &str = "a1";

/// Where the pods' servers listen.
pub(super) const SERVER_PORTS: [u16; 3] = [8080, 8081, 5353];

/// Addresses that Services may have beside their cluster addresses and node ports.
const SERVICE_PREFIXES: [&str; 4] = [
    "10.96.0.0/12",
    "fd00:10:96::/112",
    "203.0.113.0/24",
    "fd00:203:113::/64",
];

/// The control plane sees two networks with the same addresses.
const TRANSLATED_WAY: &str = "
table ip way {
    chain leaving {
        type nat hook postrouting priority 100
        oifname way masquerade
    }
}";

/// A network, and servers in its pods.
#[derive(Debug)]
pub(super) struct Side {
    /// Nodes and the ways between them.
    pub cluster: Cluster,
    stranger: Namespace,
    client: Pod,
    pods: Vec<(Pod, Answerer)>,
}

impl Side {
    /// Builds it, and joins it to the control plane's namespace by a device of this name, where it has 198.18.0.`octet`.
    pub(super) fn new(control_plane: &Namespace, device: &str, octet: u8) -> Result<Self> {
        let cluster = Cluster::new(PodNetwork::Routed)?;
        let outside = &cluster.outside;
        control_plane.ip(&format!(
            "link add {device} type veth peer name way netns {}\n\
             link set {device} master bridge up",
            outside.path().display()
        ))?;
        outside.ip(&format!(
            "link set way up\naddr add 198.18.0.{octet}/24 dev way"
        ))?;
        outside.nft(TRANSLATED_WAY)?;
        let stranger = stranger(&cluster)?;
        for prefix in SERVICE_PREFIXES {
            outside.ip(&format!(
                "route add {prefix} via {}",
                gateway(&cluster, prefix)
            ))?;
        }
        outside.nft(&nobody())?;
        for namespace in [
            outside,
            &cluster.node(1).namespace,
            &cluster.node(2).namespace,
        ] {
            // The referee's refusals are subject to it; a test asks faster than people do.
            namespace.sysctl("net/ipv4/icmp_ratelimit", "0")?;
            namespace.sysctl("net/ipv6/icmp/ratelimit", "0")?;
            // Of each namespace since Linux 6.13, of the machine before.
            drop(namespace.sysctl("net/ipv4/icmp_msgs_per_sec", "100000"));
            drop(namespace.sysctl("net/ipv4/icmp_msgs_burst", "100000"));
            for setting in ["all", "default", "eth0"] {
                let key = format!("net/ipv4/conf/{setting}/send_redirects");
                // `outside` has no eth0.
                drop(namespace.sysctl(&key, "0"));
            }
        }
        let client = cluster.add_pod(1, "client", 100)?;
        let mut pods = Vec::new();
        for (node, letter) in [(1, 'a'), (2, 'b')] {
            for number in 1..=3 {
                let name = format!("{letter}{number}");
                let pod = cluster.add_pod(node, &name, 10 + number)?;
                let answerer = Answerer::start(&pod.namespace, &name, &SERVER_PORTS)?;
                pods.push((pod, answerer));
            }
        }
        Ok(Self {
            cluster,
            stranger,
            client,
            pods,
        })
    }

    /// Where clients of a place live.
    pub(super) fn namespace(&self, place: Place) -> Result<&Namespace> {
        Ok(match place {
            Place::Pod => &self.client.namespace,
            Place::Backend => {
                let mut pods = self.pods.iter().map(|(pod, _)| pod);
                let backend = pods.find(|pod| pod.name == BACKEND);
                &backend.context(BACKEND)?.namespace
            }
            Place::Outside => &self.stranger,
            Place::Host => &self.cluster.node(1).namespace,
        })
    }

    /// The addresses of the node in question.
    pub(super) fn node_addresses(&self) -> [IpAddr; 2] {
        let node = self.cluster.node(1);
        [node.v4().into(), node.v6().into()]
    }
}

fn stranger(cluster: &Cluster) -> Result<Namespace> {
    let stranger = Namespace::new("stranger")?;
    cluster.outside.ip(&format!(
        "link add stranger type veth peer name eth0 netns {}\n\
         link set stranger master underlay up",
        stranger.path().display()
    ))?;
    stranger.ip("link set eth0 up\n\
         addr add 192.168.77.50/24 dev eth0\n\
         addr add fd00:192:168:77::50/64 dev eth0 nodad\n\
         route add default via 192.168.77.1\n\
         route add ::/0 via fd00:192:168:77::1")?;
    for prefix in SERVICE_PREFIXES {
        let gateway = gateway(cluster, prefix);
        stranger.ip(&format!("route add {prefix} via {gateway}"))?;
    }
    Ok(stranger)
}

/// The address of node 1 in the family of a prefix.
fn gateway(cluster: &Cluster, prefix: &str) -> IpAddr {
    let node = cluster.node(1);
    if prefix.contains(':') {
        node.v6().into()
    } else {
        node.v4().into()
    }
}

/// Rules by which a router says that addresses of Services are nobody's: a route would say so less often.
fn nobody() -> String {
    let of = |is_v6| {
        let prefixes = SERVICE_PREFIXES.into_iter();
        let of_family: Vec<_> = prefixes.filter(|it| it.contains(':') == is_v6).collect();
        of_family.join(", ")
    };
    format!(
        "table inet nobody {{
    chain forward {{
        type filter hook forward priority 0
        ip daddr {{ {} }} reject with icmp host-unreachable
        ip6 daddr {{ {} }} reject with icmpv6 addr-unreachable
    }}
}}",
        of(false),
        of(true)
    )
}
