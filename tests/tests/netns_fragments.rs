//! Datagrams that no packet can hold go through a Service in pieces, both ways.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_common::Counter;
use tests::cluster::expect::udp_socket;
use tests::cluster::service_cluster::{
    ServiceCluster, ServingPod, UDP_V4, UDP_V6, address, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::traffic::udp::{any_like, exchange};

const NODE_PORT: u16 = 30_053;
/// Lengths of datagrams: two or three pieces, and some forty.
const LENGTHS: [usize; 2] = [4000, 60_000];
/// How many datagrams of each length are sent from a socket: the first opens the flow, the others belong to it.
const TIMES: usize = 3;

/// The server sends back what it got, with a few words before: the answer comes in pieces too.
fn long_datagrams_are_answered(client: &Namespace, frontend: SocketAddr) -> Result<()> {
    for length in LENGTHS {
        client.run(|| {
            let socket = udp_socket(any_like(frontend, 0))?;
            for number in 0..TIMES {
                let text = format!("{number} ").repeat(length / 2);
                let answer = exchange(&socket, frontend, &text)?
                    .with_context(|| format!("no answer to {length} bytes to {frontend}"))?;
                ensure!(answer.from == frontend, "answered as {}", answer.from);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Over IPv6 nobody on the way makes pieces smaller: where a tunnel is narrower than the sender's link, the first datagram
/// is lost, and an ICMP error tells the sender.
fn a_datagram_may_be_lost(client: &Namespace, frontend: SocketAddr) -> Result<()> {
    client.run(|| {
        let socket = udp_socket(any_like(frontend, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let _lost = exchange(&socket, frontend, &"lost? ".repeat(LENGTHS[0] / 6))?;
        Ok(())
    })
}

fn addresses_of_node(cluster: &ServiceCluster) -> [IpAddr; 2] {
    let node = cluster.cluster.node(1);
    [node.v4().into(), node.v6().into()]
}

/// From a pod to the ClusterIPs, and from outside to node 1's node ports, with a pod on the node or another.
fn long_datagrams_go_through_over(network: PodNetwork, on: u8) -> Result<()> {
    with_services(network, |cluster| {
        cluster.add_node_ports("")?;
        let pod: ServingPod = cluster.add_serving_pod(on, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        cluster.start_agents(&[&pod])?;
        for frontend in [UDP_V4, UDP_V6] {
            let frontend = address(frontend)?;
            long_datagrams_are_answered(&client.namespace, frontend)?;
            // A pod that is its own backend, through a masquerade.
            long_datagrams_are_answered(&pod.pod.namespace, frontend)?;
        }
        for address in addresses_of_node(cluster) {
            let door = SocketAddr::new(address, NODE_PORT);
            if network == PodNetwork::Vxlan && address.is_ipv6() {
                a_datagram_may_be_lost(&cluster.cluster.outside, door)?;
            }
            long_datagrams_are_answered(&cluster.cluster.outside, door)?;
        }
        let followed = cluster.agents[0].counted(Counter::LaterFragments)?;
        ensure!(followed > 500, "{followed} fragments were translated");
        Ok(())
    })
}

#[test]
fn long_datagrams_reach_a_pod_of_the_node() -> Result<()> {
    long_datagrams_go_through_over(PodNetwork::Routed, 1)
}

#[test]
fn long_datagrams_reach_a_pod_of_another_node() -> Result<()> {
    long_datagrams_go_through_over(PodNetwork::Routed, 2)
}

#[test]
fn long_datagrams_reach_a_pod_behind_the_same_bridge() -> Result<()> {
    long_datagrams_go_through_over(
        PodNetwork::Bridged {
            bridge_netfilter: false,
        },
        1,
    )
}

#[test]
fn long_datagrams_reach_a_pod_over_a_vxlan_overlay() -> Result<()> {
    long_datagrams_go_through_over(PodNetwork::Vxlan, 2)
}

/// Where host conntrack is at work the host puts the pieces together behind our ingress, and takes them apart before our
/// egress.
#[test]
fn long_datagrams_go_through_where_the_host_puts_them_together() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        cluster.add_node_ports("")?;
        let pod = cluster.add_serving_pod(2, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        for node in cluster.cluster.nodes() {
            node.namespace.nft(
                "table inet watch {
                    chain forward {
                        type filter hook forward priority 0; policy accept;
                        ct state invalid drop
                    }
                }",
            )?;
        }
        cluster.start_agents(&[&pod])?;
        for frontend in [UDP_V4, UDP_V6] {
            long_datagrams_are_answered(&client.namespace, address(frontend)?)?;
        }
        for address in addresses_of_node(cluster) {
            let door = SocketAddr::new(address, NODE_PORT);
            long_datagrams_are_answered(&cluster.cluster.outside, door)?;
        }
        Ok(())
    })
}
