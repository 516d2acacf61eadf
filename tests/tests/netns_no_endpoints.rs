//! Services without endpoints: clients are refused at once, as by kube-proxy; where only this node has none and the policy
//! is `Local`, they hear nothing.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::service_cluster::{HTTP_PORT, ServiceCluster, UDP_PORT, with_services};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::traffic::client::{HttpFailure, http_get};
use tests::traffic::udp::{any_like, exchange_connected};

const HTTP: u16 = 80;
const DNS: u16 = 53;
const NODE_PORT: u16 = 30_080;
/// A refusal comes at once; a client that hears nothing waits so long.
const PATIENCE: Duration = Duration::from_secs(15);
const ADDRESSES: [&str; 2] = ["10.96.0.81", "fd00:10:96::81"];

/// The Service `door` over pods with a label, and agents.
fn open(cluster: &mut ServiceCluster, app: &str, policy: &str) -> Result<()> {
    let [v4, v6] = ADDRESSES;
    let service = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: NodePort
  selector: {{app: {app}}}
  clusterIPs: [{v4}, '{v6}']
  externalTrafficPolicy: {policy}
  ports:
  - {{name: http, protocol: TCP, port: {HTTP}, targetPort: {HTTP_PORT}, nodePort: {NODE_PORT}}}
  - {{name: dns, protocol: UDP, port: {DNS}, targetPort: {UDP_PORT}}}
"
    );
    cluster.state.apply("service-door", &service)
}

/// How a request over HTTP failed; nothing if it did not.
fn failure_at(namespace: &Namespace, door: SocketAddr) -> Result<String> {
    let answer = namespace.run(|| Ok(http_get(door, PATIENCE)))?;
    Ok(answer.err().map(|it| it.to_string()).unwrap_or_default())
}

/// A question over a connected UDP socket, which hears of ICMP errors.
fn ask_connected(door: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(any_like(door, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(door)?;
    exchange_connected(&socket, "anybody?").map(drop)
}

#[test]
fn clients_of_a_service_without_endpoints_are_refused() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, "nobody", "Cluster")?;
        let pod = cluster.add_serving_pod(1, "near", 2)?;
        cluster.start_agents(&[&pod])?;
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        let node = cluster.cluster.node(1);
        let mut doors: Vec<(&Namespace, SocketAddr)> = Vec::new();
        for address in ADDRESSES {
            doors.push((&client.namespace, SocketAddr::new(address.parse()?, HTTP)));
            doors.push((&node.namespace, SocketAddr::new(address.parse()?, HTTP)));
        }
        for address in [node.v4().into(), node.v6().into()] {
            doors.push((
                &cluster.cluster.outside,
                SocketAddr::new(address, NODE_PORT),
            ));
        }
        for (namespace, door) in doors {
            let failure = failure_at(namespace, door)?;
            ensure!(failure.contains("refused"), "{door}: {failure:?}");
        }
        for address in ADDRESSES {
            let door = SocketAddr::new(address.parse()?, DNS);
            let answer = client.namespace.run(|| Ok(ask_connected(door)))?;
            let failure = format!("{:#}", answer.err().context("an answer")?);
            ensure!(failure.contains("refused"), "{door}: {failure:?}");
        }
        Ok(())
    })
}

#[test]
fn clients_are_refused_from_the_moment_the_last_endpoint_goes() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, "web", "Cluster")?;
        let pod = cluster.add_serving_pod(1, "near", 2)?;
        cluster.start_agents(&[&pod])?;
        let client = cluster.cluster.add_pod(2, "client", 100)?;
        let door = SocketAddr::new(ADDRESSES[0].parse()?, HTTP);
        let answer = client.namespace.run(|| Ok(http_get(door, PATIENCE)))?;
        ensure!(answer.is_ok(), "{answer:?}");
        cluster.state.delete_pod("near")?;
        cluster.wait_for(&[])?;
        let failure = failure_at(&client.namespace, door)?;
        ensure!(failure.contains("refused"), "{failure:?}");
        Ok(())
    })
}

#[test]
fn clients_of_a_node_without_local_endpoints_hear_nothing() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        open(cluster, "web", "Local")?;
        let pod = cluster.add_serving_pod(2, "far", 2)?;
        cluster.start_agents(&[&pod])?;
        let door = SocketAddr::new(cluster.cluster.node(1).v4().into(), NODE_PORT);
        let outside = &cluster.cluster.outside;
        let answer = outside.run(|| Ok(http_get(door, Duration::from_millis(1500))))?;
        let silence = HttpFailure::TimedOut("connect");
        ensure!(answer == Err(silence), "{answer:?}");
        Ok(())
    })
}
