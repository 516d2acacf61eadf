//! What needs modules that a host's kernel may lack and the kernels of the test machine have:
//! bridges that netfilter sees, tunnels, VLANs.

use anyhow::Result;
use tests::cluster::checks::{
    a_rule_against_invalid_packets_is_harmless_over, pods_meet_all_backends,
    pods_meet_all_backends_over,
};
use tests::cluster::expect::{tcp_meets_exactly, udp_meets_exactly};
use tests::cluster::service_cluster::{ServiceCluster, UDP_V4, WEB_V4, address, with_services};
use tests::cluster::topology::{Node, PodNetwork};
use tests::machine::require::{has_bridge_netfilter, has_device_kind, has_program, optional};
use tests::machine::scratch::Scratch;

const SEEN_BRIDGE: PodNetwork = PodNetwork::Bridged {
    bridge_netfilter: true,
};

#[test]
fn pods_meet_all_backends_over_a_bridge_that_netfilter_sees() -> Result<()> {
    if !optional(has_bridge_netfilter(), "needs br_netfilter") {
        return Ok(());
    }
    pods_meet_all_backends_over(SEEN_BRIDGE)
}

#[test]
fn a_rule_against_invalid_packets_is_harmless_over_a_bridge_that_netfilter_sees() -> Result<()> {
    if !optional(has_bridge_netfilter(), "needs br_netfilter") {
        return Ok(());
    }
    a_rule_against_invalid_packets_is_harmless_over(SEEN_BRIDGE)
}

/// Runs `test` on a routed cluster if the kernel makes devices of a kind.
fn with_device_kind(
    kind: &str,
    test: impl FnOnce(&mut ServiceCluster) -> Result<()>,
) -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let needs = format!("needs network devices of type {kind}");
    if !optional(has_device_kind(kind)?, &needs) {
        return Ok(());
    }
    with_services(PodNetwork::Routed, test)
}

/// Makes `tunnel0` on a node and sends what is for the other node's pods through it.
fn lay_tunnel(node: &Node, link: &str) -> Result<()> {
    let own = node.number;
    let other = 3 - own;
    node.namespace.ip(&format!(
        "link add tunnel0 {link}\n\
         link set tunnel0 up\n\
         addr add 10.244.{own}.1/32 dev tunnel0\n\
         addr add fd00:10:244:{own}::1/128 dev tunnel0 nodad\n\
         route replace 10.244.{other}.0/24 dev tunnel0 src 10.244.{own}.1\n\
         route replace fd00:10:244:{other}::/64 dev tunnel0 src fd00:10:244:{own}::1"
    ))?;
    Ok(())
}

#[test]
fn pods_meet_backends_over_an_ipip_tunnel() -> Result<()> {
    with_device_kind("ipip", |cluster| {
        for node in cluster.cluster.nodes() {
            let own = node.number;
            let other = 3 - own;
            let ends = format!("local 192.168.77.1{own} remote 192.168.77.1{other}");
            node.namespace.ip(&format!(
                "link add tunnel0 type ipip {ends}\n\
                 link set tunnel0 up\n\
                 addr add 10.244.{own}.1/32 dev tunnel0\n\
                 route replace 10.244.{other}.0/24 dev tunnel0 src 10.244.{own}.1"
            ))?;
        }
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&far])?;
        let node = cluster.cluster.node(1).namespace.clone();
        // The pod reaches itself across no tunnel, and the tunnel is no veth: both ways are tried.
        for namespace in [&client.namespace, &node, &far.pod.namespace] {
            tcp_meets_exactly(namespace, address(WEB_V4)?, &[&far])?;
            udp_meets_exactly(namespace, address(UDP_V4)?, &[&far])?;
        }
        Ok(())
    })
}

#[test]
fn pods_meet_all_backends_over_wireguard() -> Result<()> {
    if !optional(has_program("wg"), "needs the program wg") {
        return Ok(());
    }
    with_device_kind("wireguard", |cluster| {
        let scratch = Scratch::new()?;
        let mut keys = Vec::new();
        for node in cluster.cluster.nodes() {
            let private = node.namespace.output("wg", &["genkey"])?;
            let file = scratch.write(&node.name(), &private)?;
            let public = node.namespace.output_of("wg", &["pubkey"], &private)?;
            keys.push((file.display().to_string(), public.trim().to_owned()));
        }
        for (node, (private, _)) in cluster.cluster.nodes().iter().zip(&keys) {
            let other = 3 - node.number;
            let peer = keys.get(usize::from(other) - 1).map(|(_, public)| public);
            lay_tunnel(node, "mtu 1420 type wireguard")?;
            let arguments = [
                "set",
                "tunnel0",
                "listen-port",
                "51820",
                "private-key",
                private,
                "peer",
                peer.map_or("", String::as_str),
                "endpoint",
                &format!("192.168.77.1{other}:51820"),
                "allowed-ips",
                &format!("10.244.{other}.0/24,fd00:10:244:{other}::/64"),
            ];
            node.namespace.output("wg", &arguments)?;
        }
        pods_meet_all_backends(cluster)
    })
}

#[test]
fn pods_meet_all_backends_over_a_vlan_between_the_nodes() -> Result<()> {
    with_device_kind("vlan id 5", |cluster| {
        for node in cluster.cluster.nodes() {
            let own = node.number;
            let other = 3 - own;
            node.namespace.ip(&format!(
                "link add link eth0 name eth0.5 type vlan id 5\n\
                 link set eth0.5 up\n\
                 addr add 192.168.78.1{own}/24 dev eth0.5\n\
                 addr add fd00:192:168:78::1{own}/64 dev eth0.5 nodad\n\
                 route replace 10.244.{other}.0/24 via 192.168.78.1{other}\n\
                 route replace fd00:10:244:{other}::/64 via fd00:192:168:78::1{other}"
            ))?;
        }
        pods_meet_all_backends(cluster)
    })
}
