//! Where node ports are served: `--nodeport-addresses`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{is_address_of, tcp_meets_exactly, udp_meets_exactly};
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, ServingPod, UDP_PORT, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::traffic::client::http_get;

const HTTP: u16 = 30_080;
const UDP: u16 = 30_053;

/// Far more than an answer takes, and not long to wait for one that must not come.
const PATIENCE: Duration = Duration::from_millis(700);

/// A pod of `web` on each node, and node ports for them.
fn open(cluster: &mut ServiceCluster, nodeport_addresses: &str) -> Result<[ServingPod; 2]> {
    let door = format!(
        "kind: Service
metadata: {{name: door, namespace: default}}
spec:
  type: NodePort
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: {HTTP}}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: {UDP_PORT}, nodePort: {UDP}}}
"
    );
    cluster.state.apply("service-door", &door)?;
    let pods = [
        cluster.add_serving_pod(1, "near", 2)?,
        cluster.add_serving_pod(2, "far", 2)?,
    ];
    let extra = ["--nodeport-addresses", nodeport_addresses];
    cluster.start_agents_with(&[&pods[0], &pods[1]], &extra)?;
    Ok(pods)
}

fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok((address.parse::<IpAddr>()?, port).into())
}

fn nobody_answers(namespace: &Namespace, address: SocketAddr) -> Result<()> {
    let answer = namespace.run(|| Ok(http_get(address, PATIENCE)))?;
    ensure!(answer.is_err(), "{address} answers {answer:?}");
    Ok(())
}

#[test]
fn processes_of_the_node_reach_node_ports_at_localhost_and_pods_see_the_nodes_address() -> Result<()>
{
    with_services(PodNetwork::Routed, |cluster| {
        let pods = open(cluster, "localhost")?;
        let pods = [&pods[0], &pods[1]];
        let node = cluster.cluster.node(1);
        for localhost in ["127.0.0.1", "::1"] {
            tcp_meets_exactly(&node.namespace, at(localhost, HTTP)?, &pods)?;
            let mut clients = udp_meets_exactly(&node.namespace, at(localhost, UDP)?, &pods)?;
            let url = format!("http://{}/peer", at(localhost, HTTP)?);
            for _ in 0..8 {
                let arguments = ["-sSf", "--max-time", "10", "--noproxy", "*", &url];
                clients.insert(node.namespace.output("curl", &arguments)?.trim().parse()?);
            }
            ensure!(
                clients.iter().all(|it| is_address_of(node, *it)),
                "seen as {clients:?}"
            );
        }
        // Neither others nor others' loopback: the word means this node's own processes.
        let client = cluster.cluster.add_pod(1, "client", 100)?;
        nobody_answers(&client.namespace, at("127.0.0.1", HTTP)?)?;
        let primary = SocketAddr::new(node.v4().into(), HTTP);
        nobody_answers(&cluster.cluster.outside, primary)?;
        nobody_answers(&node.namespace, primary)
    })
}

#[test]
fn an_address_that_comes_serves_node_ports_and_one_that_goes_does_not() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = open(cluster, "198.51.100.0/24,2001:db8:7::/64")?;
        let pods = [&pods[0], &pods[1]];
        let node = cluster.cluster.node(1);
        let outside = &cluster.cluster.outside;
        let frontends = [at("198.51.100.7", HTTP)?, at("2001:db8:7::7", HTTP)?];
        outside.ip(&format!(
            "route add 198.51.100.7 via {}\nroute add 2001:db8:7::7 via {}",
            node.v4(),
            node.v6()
        ))?;
        let primary = SocketAddr::new(node.v4().into(), HTTP);
        let shown = |is_shown: bool| {
            cluster.agents[0].wait_until("get services -o json", |text| {
                let mut frontends = frontends.iter().map(ToString::to_string);
                frontends.all(|frontend| text.contains(&frontend) == is_shown)
            })
        };
        shown(false)?;
        nobody_answers(outside, primary)?;
        for _ in 0..2 {
            node.namespace
                .ip("addr add 198.51.100.7/32 dev lo\naddr add 2001:db8:7::7/128 dev lo nodad")?;
            shown(true)?;
            for frontend in frontends {
                tcp_meets_exactly(outside, frontend, &pods)?;
            }
            node.namespace
                .ip("addr del 198.51.100.7/32 dev lo\naddr del 2001:db8:7::7/128 dev lo")?;
            shown(false)?;
            nobody_answers(outside, frontends[0])?;
        }
        Ok(())
    })
}

#[test]
fn all_means_every_address_of_the_node_but_loopback() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pods = open(cluster, "all")?;
        let pods = [&pods[0], &pods[1]];
        let node = cluster.cluster.node(1);
        node.namespace.ip("addr add 198.51.100.7/32 dev lo")?;
        let wanted = at("198.51.100.7", HTTP)?.to_string();
        cluster.agents[0].wait_until("get services -o json", |text| text.contains(&wanted))?;
        let shown = cluster.agents[0].waggle("get services -o json")?;
        ensure!(!shown.contains("[fe80:"), "addresses of one link: {shown}");
        tcp_meets_exactly(&node.namespace, at("198.51.100.7", HTTP)?, &pods)?;
        for address in [IpAddr::from(node.v4()), node.v6().into()] {
            let frontend = SocketAddr::new(address, HTTP);
            tcp_meets_exactly(&cluster.cluster.outside, frontend, &pods)?;
        }
        nobody_answers(&node.namespace, at("127.0.0.1", HTTP)?)
    })
}
