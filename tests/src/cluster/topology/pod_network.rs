//! What each kind of pod network does to a node, and to a pod that joins it.

use anyhow::Result;

use super::{Node, Pod, PodNetwork, VXLAN_PORT};
use crate::machine::require::has_bridge_netfilter;
use crate::packets::tun::WireKind;

/// What VXLAN takes from the underlay's 1500 bytes.
const VXLAN_MTU: u16 = 1450;

/// The bridge, the tunnel and the routes to the other node's pods.
pub(super) fn prepare(node: &Node) -> Result<()> {
    let number = node.number;
    let other = 3 - number;
    let route_to_other = format!(
        "route add 10.244.{other}.0/24 via 192.168.77.1{other}\n\
         route add fd00:10:244:{other}::/64 via fd00:192:168:77::1{other}"
    );
    match node.network {
        PodNetwork::Routed | PodNetwork::PointToPoint => {
            node.namespace.ip(&route_to_other)?;
        }
        PodNetwork::Bridged { bridge_netfilter } => {
            node.namespace.ip(&bridge(node, 1500))?;
            node.namespace.ip(&route_to_other)?;
            if has_bridge_netfilter() {
                let value = if bridge_netfilter { "1" } else { "0" };
                let namespace = &node.namespace;
                namespace.sysctl("net/bridge/bridge-nf-call-iptables", value)?;
                namespace.sysctl("net/bridge/bridge-nf-call-ip6tables", value)?;
            }
        }
        PodNetwork::Vxlan => {
            node.namespace.ip(&bridge(node, VXLAN_MTU))?;
            node.namespace.ip(&format!(
                "link add flannel.1 address {own} mtu {VXLAN_MTU} type vxlan id 1 \
                    local 192.168.77.1{number} remote 192.168.77.1{other} dstport {VXLAN_PORT} nolearning\n\
                 link set flannel.1 up\n\
                 addr add 10.244.{number}.0/32 dev flannel.1\n\
                 addr add fd00:10:244:{number}::/128 dev flannel.1 nodad\n\
                 neigh add 10.244.{other}.0 lladdr {theirs} dev flannel.1 nud permanent\n\
                 neigh add fd00:10:244:{other}:: lladdr {theirs} dev flannel.1 nud permanent\n\
                 route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink\n\
                 route add fd00:10:244:{other}::/64 via fd00:10:244:{other}:: dev flannel.1 onlink",
                own = tunnel_mac(number),
                theirs = tunnel_mac(other),
            ))?;
        }
    }
    Ok(())
}

fn tunnel_mac(number: u8) -> String {
    format!("02:77:00:00:01:0{number}")
}

/// A bridge with a fixed address: one that follows its ports would break the pods' neighbour entries.
fn bridge(node: &Node, mtu: u16) -> String {
    let (v4, v6) = (node.gateway_v4(), node.gateway_v6());
    let number = node.number;
    format!(
        "link add cni0 address 02:77:00:00:02:0{number} mtu {mtu} type bridge\n\
         link set cni0 up\n\
         addr add {v4}/24 dev cni0\n\
         addr add {v6}/64 dev cni0 nodad\n"
    )
}

/// Joins a pod: the veth, its addresses and the routes at both ends.
pub(super) fn connect(node: &Node, pod: &Pod) -> Result<()> {
    let Pod {
        v4, v6, interface, ..
    } = pod;
    let mtu = match node.network {
        PodNetwork::Vxlan => VXLAN_MTU,
        PodNetwork::Routed | PodNetwork::PointToPoint | PodNetwork::Bridged { .. } => 1500,
    };
    let path = pod.namespace.path();
    node.namespace.ip(&format!(
        "link add {interface} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
        path.display()
    ))?;
    pod.namespace.ip("link set eth0 up")?;
    match node.network {
        PodNetwork::Routed => answering_for_all(node, pod),
        PodNetwork::PointToPoint => {
            let (v4, v6) = (node.gateway_v4().to_string(), node.gateway_v6().to_string());
            let addresses = format!(
                "addr add {v4}/32 dev {interface}\naddr add {v6}/128 dev {interface} nodad\n"
            );
            routed(node, pod, &v4, &v6, &addresses)
        }
        PodNetwork::Bridged { .. } | PodNetwork::Vxlan => {
            node.namespace
                .ip(&format!("link set {interface} master cni0 up"))?;
            pod.namespace.ip(&format!(
                "addr add {v4}/24 dev eth0\n\
                 addr add {v6}/64 dev eth0 nodad\n\
                 route add default via {}\n\
                 route add ::/0 via {}",
                node.gateway_v4(),
                node.gateway_v6()
            ))?;
            Ok(())
        }
    }
}

/// The node answers the pod's ARP for any address.
fn answering_for_all(node: &Node, pod: &Pod) -> Result<()> {
    let key = format!("net/ipv4/conf/{}/proxy_arp", pod.interface);
    node.namespace.sysctl(&key, "1")?;
    routed(node, pod, "169.254.1.1", "fe80::1", "")
}

/// Gives the ends of a wire their addresses and routes, and room for packets longer than a page.
pub(super) fn connect_wire(node: &Node, pod: &Pod, kind: WireKind) -> Result<()> {
    let Pod {
        v4, v6, interface, ..
    } = pod;
    node.namespace
        .ip(&format!("link set {interface} mtu 9000 up"))?;
    pod.namespace.ip("link set eth0 mtu 9000 up")?;
    if !kind.is_plain_ip() {
        return answering_for_all(node, pod);
    }
    node.namespace.ip(&format!(
        "route add {v4}/32 dev {interface}\n\
         route add {v6}/128 dev {interface}"
    ))?;
    pod.namespace.ip(&format!(
        "addr add {v4}/32 dev eth0\n\
         addr add {v6}/128 dev eth0 nodad\n\
         route add default dev eth0\n\
         route add ::/0 dev eth0"
    ))?;
    Ok(())
}

fn routed(node: &Node, pod: &Pod, gateway: &str, gateway_v6: &str, addresses: &str) -> Result<()> {
    let Pod {
        v4, v6, interface, ..
    } = pod;
    node.namespace.ip(&format!(
        "link set {interface} up\n\
         addr add fe80::1/64 dev {interface} nodad\n\
         {addresses}\
         route add {v4}/32 dev {interface}\n\
         route add {v6}/128 dev {interface}"
    ))?;
    pod.namespace.ip(&format!(
        "addr add {v4}/32 dev eth0\n\
         addr add {v6}/128 dev eth0 nodad\n\
         route add {gateway} dev eth0 scope link\n\
         route add default via {gateway} dev eth0\n\
         route add {gateway_v6} dev eth0\n\
         route add ::/0 via {gateway_v6} dev eth0"
    ))?;
    Ok(())
}
