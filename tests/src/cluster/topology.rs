//! A cluster of two nodes in network namespaces, joined by an underlay, with one of four kinds of
//! pod network.
//!
//! ```text
//!   outside 192.168.77.1 ── bridge ──┬── eth0 node1 192.168.77.11 ── pods 10.244.1.0/24
//!                                    └── eth0 node2 192.168.77.12 ── pods 10.244.2.0/24
//! ```
//! Every IPv4 address a.b.c.d has an IPv6 companion: 10.244.1.2 is `fd00:10:244:1::2`, 192.168.77.11 is
//! `fd00:192:168:77::11`. All interfaces have `rp_filter=1`.

mod pod;
mod pod_network;

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};

pub use pod::Pod;

use crate::machine::netns::Namespace;
use crate::packets::tun::WireKind;

/// How pods reach their node, and nodes each other's pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PodNetwork {
    /// A veth for each pod, no address on the node's side: pods ask for 169.254.1.1 and the node
    /// answers by proxy ARP (as Calico does). Routes between the nodes.
    Routed,
    /// A veth for each pod whose node side carries the gateway address (as the ptp plugin does).
    PointToPoint,
    /// The bridge cni0 with the gateway address; routes between the nodes.
    Bridged {
        /// Whether netfilter sees bridged packets (`br_netfilter`).
        bridge_netfilter: bool,
    },
    /// The bridge cni0, and flannel.1 (VXLAN) between the nodes.
    Vxlan,
}

/// The port of the VXLAN tunnel, as flannel's.
const VXLAN_PORT: u16 = 8472;

/// One node: a namespace with `eth0` on the underlay.
#[derive(Clone, Debug)]
pub struct Node {
    /// 1 or 2; pods of node N have the addresses 10.244.N.X.
    pub number: u8,
    /// The namespace the node's kernel would be.
    pub namespace: Namespace,
    network: PodNetwork,
}

/// Two nodes and the namespace outside that joins them.
#[derive(Debug)]
pub struct Cluster {
    /// The underlay's bridge; clients from outside the cluster run here.
    pub outside: Namespace,
    nodes: [Node; 2],
}

impl Cluster {
    /// Builds the nodes and their ways to each other; pods come with [`Cluster::add_pod`].
    pub fn new(network: PodNetwork) -> Result<Self> {
        let outside = Namespace::new("outside")?;
        outside.ip("link add underlay type bridge\n\
             link set underlay address 02:77:00:00:00:01 up\n\
             addr add 192.168.77.1/24 dev underlay\n\
             addr add fd00:192:168:77::1/64 dev underlay nodad")?;
        let nodes = [
            Node::new(1, network, &outside)?,
            Node::new(2, network, &outside)?,
        ];
        forward(&outside)?;
        for node in &nodes {
            let number = node.number;
            let (v4, v6) = (node.v4(), node.v6());
            outside.ip(&format!(
                "route add 10.244.{number}.0/24 via {v4}\n\
                 route add fd00:10:244:{number}::/64 via {v6}"
            ))?;
        }
        Ok(Self { outside, nodes })
    }

    /// Node 1 or 2.
    pub fn node(&self, number: u8) -> &Node {
        let [first, second] = &self.nodes;
        if number == 1 { first } else { second }
    }

    /// Both.
    pub fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// Makes a pod at 10.244.`node`.`octet` and connects it.
    pub fn add_pod(&self, node: u8, name: &str, octet: u8) -> Result<Pod> {
        self.node(node)
            .add_pod(name, octet)
            .with_context(|| format!("add pod {name} to node{node}"))
    }
}

impl Node {
    fn new(number: u8, network: PodNetwork, outside: &Namespace) -> Result<Self> {
        let namespace = Namespace::new(&format!("node{number}"))?;
        forward(&namespace)?;
        let node = Self {
            number,
            namespace,
            network,
        };
        let path = node.namespace.path();
        outside.ip(&format!(
            "link add node{number} type veth peer name eth0 netns {}\n\
             link set node{number} master underlay up",
            path.display()
        ))?;
        let (v4, v6) = (node.v4(), node.v6());
        node.namespace.ip(&format!(
            "link set eth0 up\n\
             addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             route add default via 192.168.77.1\n\
             route add ::/0 via fd00:192:168:77::1"
        ))?;
        pod_network::prepare(&node)?;
        Ok(node)
    }

    /// `node1` or `node2`, the name the agent is given.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// The node's address on the underlay.
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 77, 10 + self.number)
    }

    /// The node's IPv6 address on the underlay.
    pub fn v6(&self) -> Ipv6Addr {
        let last = 0x10 + u16::from(self.number); // written ::11 and ::12
        Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x77, 0, 0, 0, last)
    }

    /// The address pods of a bridged or point-to-point network use as gateway.
    pub fn gateway_v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, 1)
    }

    /// The IPv6 gateway of the pods.
    pub fn gateway_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(self.number), 0, 0, 0, 1)
    }

    /// Makes a pod on this node and connects it.
    pub fn add_pod(&self, name: &str, octet: u8) -> Result<Pod> {
        Pod::new(self, name, octet)
    }

    /// Makes a pod that is joined by a tun or tap device; the network must be
    /// [`PodNetwork::Routed`].
    pub fn add_pod_on_wire(&self, name: &str, octet: u8, kind: WireKind) -> Result<Pod> {
        ensure!(
            self.network == PodNetwork::Routed,
            "wires need a routed network"
        );
        Pod::on_wire(self, name, octet, kind)
    }
}

fn forward(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    if crate::machine::require::has_bridge_netfilter() {
        // The kernel's default is on; each kind of network that wants it says so.
        namespace.sysctl("net/bridge/bridge-nf-call-iptables", "0")?;
        namespace.sysctl("net/bridge/bridge-nf-call-ip6tables", "0")?;
    }
    Ok(())
}
