//! A ClusterIP over every kind of pod network: TCP and UDP, IPv4 and IPv6, from pods on both nodes to
//! backends on both nodes, and a pod that reaches itself.

use anyhow::{Result, ensure};
use tests::cluster::checks::pods_meet_all_backends_over;
use tests::cluster::expect::{ask_udp, is_address_of, tcp_meets_exactly};
use tests::cluster::service_cluster::{UDP_V4, UDP_V6, WEB_V4, WEB_V6, address, with_services};
use tests::cluster::topology::PodNetwork;

const BRIDGED: PodNetwork = PodNetwork::Bridged {
    bridge_netfilter: false,
};

#[test]
fn pods_meet_all_backends_over_a_routed_network() -> Result<()> {
    pods_meet_all_backends_over(PodNetwork::Routed)
}

#[test]
fn pods_meet_all_backends_over_a_point_to_point_network() -> Result<()> {
    pods_meet_all_backends_over(PodNetwork::PointToPoint)
}

#[test]
fn pods_meet_all_backends_over_a_bridge() -> Result<()> {
    pods_meet_all_backends_over(BRIDGED)
}

#[test]
fn pods_meet_all_backends_over_a_vxlan_overlay() -> Result<()> {
    pods_meet_all_backends_over(PodNetwork::Vxlan)
}

fn a_pod_reaches_itself_as_its_node_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        let lonely = cluster.add_serving_pod(1, "lonely", 2)?;
        cluster.start_agents(&[&lonely])?;
        let node = cluster.cluster.node(1).clone();
        for frontend in [WEB_V4, WEB_V6] {
            tcp_meets_exactly(&lonely.pod.namespace, address(frontend)?, &[&lonely])?;
            let url = format!("http://{frontend}/peer");
            let arguments = ["-sSf", "--max-time", "5", "--noproxy", "*", &url];
            let seen = lonely.pod.namespace.output("curl", &arguments)?;
            let seen = seen.trim().parse()?;
            ensure!(is_address_of(&node, seen), "seen as {seen}");
        }
        for frontend in [UDP_V4, UDP_V6] {
            let answer = ask_udp(&lonely.pod.namespace, address(frontend)?, "me?")?;
            let seen = answer.seen_as.parse()?;
            ensure!(is_address_of(&node, seen), "seen as {seen}");
        }
        Ok(())
    })
}

#[test]
fn a_pod_reaches_itself_as_its_node_over_a_routed_network() -> Result<()> {
    a_pod_reaches_itself_as_its_node_over(PodNetwork::Routed)
}

#[test]
fn a_pod_reaches_itself_as_its_node_over_a_point_to_point_network() -> Result<()> {
    a_pod_reaches_itself_as_its_node_over(PodNetwork::PointToPoint)
}

#[test]
fn a_pod_reaches_itself_as_its_node_over_a_bridge() -> Result<()> {
    a_pod_reaches_itself_as_its_node_over(BRIDGED)
}

#[test]
fn a_pod_reaches_itself_as_its_node_over_a_vxlan_overlay() -> Result<()> {
    a_pod_reaches_itself_as_its_node_over(PodNetwork::Vxlan)
}
