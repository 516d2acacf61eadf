//! Flows live as long as their pod does, whatever becomes of the Service; and what is no flow of a
//! Service is left alone.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{ask_udp, tcp_meets_exactly, udp_meets_exactly};
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, UDP_PORT, UDP_V6, WEB_V4, WEB_V6, address, answer_of, pod_object,
    with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::traffic::client::{HttpFailure, http_get, http_gets};
use tests::traffic::load::LongConnection;

/// No connection of these tests lives longer.
const LIMIT: Duration = Duration::from_mins(1);

/// Connections from a pod and from the node, in both families.
fn connect(cluster: &ServiceCluster, client: &Namespace) -> Result<Vec<LongConnection>> {
    let node = &cluster.cluster.node(1).namespace;
    let mut connections = Vec::new();
    for namespace in [client, node] {
        for frontend in [WEB_V4, WEB_V6] {
            connections.push(LongConnection::start(namespace, address(frontend)?, LIMIT)?);
        }
    }
    Ok(connections)
}

/// Lets them go on for a while; none may break.
fn all_go_on(connections: Vec<LongConnection>) -> Result<()> {
    sleep(Duration::from_secs(1));
    for connection in connections {
        let server = connection.server().to_owned();
        let (_, count) = connection.stop().with_context(|| format!("to {server}"))?;
        ensure!(
            count > 10,
            "{count} requests over the connection to {server}"
        );
    }
    Ok(())
}

#[test]
fn connections_live_on_when_their_pod_loses_its_label() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let leaves = cluster.add_serving_pod(2, "leaves", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&leaves])?;
        let connections = connect(cluster, &client.namespace)?;
        let stays = cluster.add_serving_pod(1, "stays", 2)?;
        cluster
            .state
            .add_pod(&pod_object(&leaves.pod, &[("app", "other")]))?;
        cluster.wait_for(&[&stays])?;
        tcp_meets_exactly(&client.namespace, address(WEB_V4)?, &[&stays])?;
        all_go_on(connections)
    })
}

#[test]
fn connections_live_on_when_their_service_is_deleted() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pod = cluster.add_serving_pod(2, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&pod])?;
        let connections = connect(cluster, &client.namespace)?;
        cluster.state.remove("service-web")?;
        cluster.wait_for(&[])?;
        let frontend = address(WEB_V4)?;
        let result = client
            .namespace
            .run(|| Ok(http_get(frontend, Duration::from_millis(500))))?;
        ensure!(result.is_err(), "a deleted Service answers: {result:?}");
        all_go_on(connections)
    })
}

#[test]
fn a_service_without_pods_refuses_and_works_once_it_has_one() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[])?;
        let node = cluster.cluster.node(1).namespace.clone();
        for frontend in [WEB_V4, WEB_V6] {
            let frontend = address(frontend)?;
            let result = node.run(|| Ok(http_get(frontend, Duration::from_secs(3))))?;
            ensure!(
                matches!(&result, Err(HttpFailure::Broken(why)) if why.contains("refused")),
                "a process of the node: {result:?}"
            );
            let result = client
                .namespace
                .run(|| Ok(http_get(frontend, Duration::from_millis(500))))?;
            ensure!(result.is_err(), "somebody answered: {result:?}");
        }
        let first = cluster.add_serving_pod(1, "first", 2)?;
        cluster.wait_for(&[&first])?;
        for namespace in [&client.namespace, &node] {
            tcp_meets_exactly(namespace, address(WEB_V4)?, &[&first])?;
            udp_meets_exactly(namespace, address(UDP_V6)?, &[&first])?;
        }
        Ok(())
    })
}

#[test]
fn who_dials_a_pod_directly_meets_that_pod_under_its_own_address() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&near, &far])?;
        let node = cluster.cluster.node(1).namespace.clone();
        for namespace in [&client.namespace, &node] {
            for pod in [&near.pod, &far.pod] {
                for direct in [pod.socket_v4(HTTP_PORT), pod.socket_v6(HTTP_PORT)] {
                    let answers = http_gets(namespace, direct, 5)?;
                    let met: BTreeSet<String> = answers.into_keys().collect();
                    ensure!(met == BTreeSet::from([answer_of(pod, direct)]), "{met:?}");
                }
                for direct in [pod.socket_v4(UDP_PORT), pod.socket_v6(UDP_PORT)] {
                    let answer = ask_udp(namespace, direct, "direct")?;
                    ensure!(answer.pod == pod.name, "{answer:?}");
                }
            }
        }
        Ok(())
    })
}
