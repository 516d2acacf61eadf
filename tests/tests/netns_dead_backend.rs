//! UDP never goes on to a backend that has left: neither from a pod whose socket keeps its port, nor
//! from a process of the node, connected or not.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::udp_socket;
use tests::cluster::service_cluster::{
    ServiceCluster, ServingPod, UDP_V4, UDP_V6, address, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::traffic::udp::{any_like, exchange, exchange_connected};

/// One pod on node 1 and one on node 2, agents running.
fn start(cluster: &mut ServiceCluster) -> Result<Vec<ServingPod>> {
    let pods = vec![
        cluster.add_serving_pod(1, "near", 2)?,
        cluster.add_serving_pod(2, "far", 2)?,
    ];
    cluster.start_agents(&[&pods[0], &pods[1]])?;
    Ok(pods)
}

/// Deletes `leaving` and waits until the agents have it. (A pod that terminates and still serves keeps its flows.)
fn remove(cluster: &mut ServiceCluster, pods: &[ServingPod], leaving: &str) -> Result<()> {
    cluster.state.delete_pod(leaving)?;
    let stay: Vec<_> = pods.iter().filter(|pod| pod.pod.name != leaving).collect();
    cluster.wait_for(&stay)
}

fn socket_in(namespace: &Namespace, like: SocketAddr, port: u16) -> Result<UdpSocket> {
    namespace.run(|| udp_socket(any_like(like, port)))
}

#[test]
fn a_pods_socket_with_a_fixed_port_moves_to_a_live_backend() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = start(cluster)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let frontends = [address(UDP_V4)?, address(UDP_V6)?];
        let mut sockets = Vec::new();
        for (number, frontend) in (0_u16..20).zip(frontends.into_iter().cycle()) {
            let socket = socket_in(&client.namespace, frontend, 20_000 + number)?;
            let before = exchange(&socket, frontend, "before")?
                .context("no answer")?
                .pod;
            // A flow of UDP stays on its backend while that serves.
            for _ in 0..5 {
                let again = exchange(&socket, frontend, "again")?
                    .context("no answer")?
                    .pod;
                ensure!(again == before, "the flow moved from {before} to {again}");
            }
            sockets.push((socket, frontend, before));
        }
        ensure!(
            sockets.iter().any(|(_, _, pod)| pod == "near"),
            "{sockets:?}"
        );
        remove(cluster, &pods, "near")?;
        for (socket, frontend, before) in &sockets {
            let after = exchange(socket, *frontend, "after")?.with_context(|| {
                format!("no answer at {frontend} to a flow that was on {before}")
            })?;
            ensure!(after.pod == "far", "a datagram went to {}", after.pod);
            ensure!(after.from == *frontend, "answered as {}", after.from);
        }
        Ok(())
    })
}

#[test]
fn an_unconnected_socket_of_the_node_moves_to_a_live_backend() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = start(cluster)?;
        let node = cluster.cluster.node(1).namespace.clone();
        let frontends = [address(UDP_V4)?, address(UDP_V6)?];
        let mut sockets = Vec::new();
        for frontend in frontends.into_iter().cycle().take(10) {
            let socket = socket_in(&node, frontend, 0)?;
            exchange(&socket, frontend, "before")?.context("no answer")?;
            sockets.push((socket, frontend));
        }
        remove(cluster, &pods, "near")?;
        for (socket, frontend) in &sockets {
            for number in 0..10 {
                let text = format!("after {number}");
                let after = exchange(socket, *frontend, &text)?.context("no answer")?;
                ensure!(after.pod == "far", "a datagram went to {}", after.pod);
                ensure!(after.from == *frontend, "answered as {}", after.from);
            }
        }
        Ok(())
    })
}

#[test]
fn a_connected_socket_of_the_node_goes_on_with_another_backend() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = start(cluster)?;
        let node = cluster.cluster.node(1).namespace.clone();
        let frontends = [address(UDP_V4)?, address(UDP_V6)?];
        let mut sockets = Vec::new();
        for frontend in frontends.into_iter().cycle().take(20) {
            let socket = socket_in(&node, frontend, 0)?;
            socket.connect(frontend)?;
            let before = exchange_connected(&socket, "before")?
                .context("no answer")?
                .pod;
            sockets.push((socket, frontend, before));
        }
        remove(cluster, &pods, "near")?;
        for (socket, frontend, before) in &sockets {
            let after = exchange_connected(socket, "after")?
                .with_context(|| format!("no answer from {frontend} after {before}"))?;
            ensure!(after.pod == "far", "{after:?}");
        }
        Ok(())
    })
}
