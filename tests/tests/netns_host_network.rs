//! Pods with `hostNetwork` have their node's address, and share it: what becomes of one says nothing of another.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::nginx::{Nginx, Settings};
use tests::cluster::service_cluster::{HTTP_PORT, ServiceCluster, address, with_services};
use tests::cluster::topology::PodNetwork;
use tests::traffic::load::LongConnection;

const EDGE: &str = "10.96.0.75:80";
const LIMIT: Duration = Duration::from_mins(1);
const READY: &str = "ready: true";
const DRAINING: &str = "ready: false, serving: true, terminating: true";

/// A Service with one slice, whose endpoints are pods with these addresses, uids and conditions.
fn publish(
    cluster: &mut ServiceCluster,
    name: &str,
    at: SocketAddr,
    port: u16,
    endpoints: &[(IpAddr, &str, &str)],
) -> Result<()> {
    let endpoints = endpoints.iter().map(|(address, uid, conditions)| {
        format!("{{addresses: ['{address}'], targetRef: {{kind: Pod, name: {uid}, uid: {uid}}}, conditions: {{{conditions}}}}}")
    });
    let endpoints: Vec<String> = endpoints.collect();
    let objects = format!(
        "kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  clusterIP: {}
  ports: [{{port: {}, targetPort: {port}}}]
---
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{}]
",
        at.ip(),
        at.port(),
        endpoints.join(", ")
    );
    cluster.state.apply(name, &objects)
}

#[test]
fn connections_of_a_draining_pod_outlive_all_changes_of_its_neighbours() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let edge_node = cluster.cluster.node(2);
        let (edge, meter): (IpAddr, IpAddr) =
            (edge_node.v4().into(), cluster.cluster.node(1).v4().into());
        let settings = Settings {
            port: HTTP_PORT,
            ..Settings::default()
        };
        let _nginx = Nginx::start(&edge_node.namespace, "edge", settings)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let (at_edge, at_meter) = (address(EDGE)?, address("10.96.0.76:80")?);
        publish(
            cluster,
            "edge",
            at_edge,
            HTTP_PORT,
            &[(edge, "edge-1", READY)],
        )?;
        let old_meter = (edge, "meter-1", READY);
        publish(cluster, "meter", at_meter, 9100, &[old_meter])?;
        cluster.start_agents(&[])?;
        let kept = LongConnection::start(&client.namespace, at_edge, LIMIT)?;
        publish(
            cluster,
            "edge",
            at_edge,
            HTTP_PORT,
            &[(edge, "edge-1", DRAINING)],
        )?;
        // Whether its pod is gone is asked once a second.
        for (endpoints, shown) in [
            (vec![old_meter, (meter, "meter-2", READY)], true),
            (vec![(edge, "meter-3", READY)], false),
            (
                vec![(edge, "meter-3", DRAINING), (meter, "meter-2", READY)],
                true,
            ),
            (vec![(meter, "meter-2", READY)], true),
        ] {
            publish(cluster, "meter", at_meter, 9100, &endpoints)?;
            let second = format!("{meter}:9100");
            cluster.agents[0].wait_until("get backends", |text| text.contains(&second) == shown)?;
            kept.wait_for_more(75)?;
        }
        let (server, answers) = kept.stop()?;
        ensure!(
            server.starts_with("edge ") && answers >= 300,
            "{server}: {answers}"
        );
        Ok(())
    })
}
