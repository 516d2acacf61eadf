//! What the datapath leaves alone: frames for other machines, machines with addresses like a Service's, and addresses of
//! Services that the node itself has.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::{tcp_meets_exactly, udp_socket};
use tests::cluster::service_cluster::{
    HTTP_PORT, ServiceCluster, UDP_PORT, UDP_V4, WEB_V4, address, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::traffic::client::http_get;
use tests::traffic::udp::{UdpServer, any_like, exchange};

/// How long an answer may take that must not come.
const SILENCE: Duration = Duration::from_millis(700);

/// How long one may take that must come, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries to connect for so long: the error, if it fails.
fn dial(client: &Namespace, to: SocketAddr, limit: Duration) -> Result<Option<ErrorKind>> {
    client.run(|| {
        let result = TcpStream::connect_timeout(&to, limit);
        Ok(result.err().map(|it| it.kind()))
    })
}

#[test]
fn frames_that_a_switch_floods_are_neither_answered_nor_remembered() -> Result<()> {
    for network in [
        PodNetwork::Routed,
        PodNetwork::Bridged {
            bridge_netfilter: false,
        },
    ] {
        with_services(network, |cluster| {
            let near = cluster.add_serving_pod(1, "near", 2)?;
            cluster.add_node_ports("")?;
            cluster.start_agents(&[&near])?;
            let (outside, node) = (&cluster.cluster.outside, cluster.cluster.node(1));
            let node_port = SocketAddr::new(node.v4().into(), 30_080);
            let closed = address("10.96.0.81:81")?;
            outside.ip(&format!("route add 10.96.0.81 via {}", node.v4()))?;
            ensure!(dial(outside, node_port, PATIENCE)?.is_none());
            ensure!(dial(outside, closed, PATIENCE)? == Some(ErrorKind::ConnectionRefused));
            let flows = || cluster.agents[0].waggle("get flows");
            // The underlay's bridge does not know this address, and floods the frames to both nodes.
            let neighbour = |what| {
                outside.ip(&format!(
                    "neigh {what} {} lladdr 02:00:00:00:00:77 dev underlay",
                    node.v4()
                ))
            };
            neighbour("replace")?;
            let before = flows()?.lines().count();
            for to in [node_port, closed] {
                let error = dial(outside, to, SILENCE)?;
                ensure!(error == Some(ErrorKind::TimedOut), "{to}: {error:?}");
            }
            let after = flows()?;
            ensure!(after.lines().count() == before, "{after}");
            neighbour("del")?;
            ensure!(dial(outside, node_port, PATIENCE)?.is_none());
            Ok(())
        })?;
    }
    Ok(())
}

/// A machine outside with an address like a Service's.
const MACHINE: &str = "10.100.1.5";

#[test]
fn a_machine_with_an_address_like_a_services_is_answered_and_not_dialled() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let alone = cluster.cluster.add_pod(1, "alone", 7)?;
        let _alone_server = UdpServer::start(&alone.namespace, "alone", UDP_PORT)?;
        cluster.start_agents_with(&[&near], &["--service-cidr=10.96.0.0/12"])?;
        let (outside, node) = (&cluster.cluster.outside, cluster.cluster.node(1));
        let _node_server = UdpServer::start(&node.namespace, "node", 161)?;
        outside.ip(&format!("addr add {MACHINE}/32 dev underlay"))?;
        // Its own address is preferred where it goes to the nodes.
        outside.ip(&format!(
            "route replace 10.244.1.0/24 via {} src {MACHINE}",
            node.v4()
        ))?;
        let to_pod = http_from(outside, SocketAddr::new(near.pod.v4.into(), HTTP_PORT))?;
        ensure!(to_pod.starts_with("near"), "{to_pod}");
        for (server, port) in [
            (near.pod.v4, UDP_PORT),
            (alone.v4, UDP_PORT),
            (node.v4(), 161),
        ] {
            let server = SocketAddr::new(server.into(), port);
            let answer = outside.run(|| {
                let socket = UdpSocket::bind((MACHINE, 0))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                exchange(&socket, server, "question")
            })?;
            answer.with_context(|| format!("no answer of {server}"))?;
        }
        let machine = address(&format!("{MACHINE}:7777"))?;
        let listener = outside.run(|| Ok(TcpListener::bind(machine)?))?;
        for client in [&alone.namespace, &node.namespace] {
            ensure!(
                dial(client, machine, SILENCE)?.is_some(),
                "{}",
                client.name()
            );
        }
        drop(listener);
        Ok(())
    })
}

fn http_from(client: &Namespace, to: SocketAddr) -> Result<String> {
    client.run(|| http_get(to, Duration::from_secs(5)).map_err(|it| anyhow::anyhow!("{it:?}")))
}

#[test]
fn a_cluster_ip_that_the_node_has_belongs_to_its_own_listener() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let node = cluster.cluster.node(1).namespace.clone();
        // Left behind by kube-proxy's ipvs mode: not the node's.
        node.ip("link add kube-ipvs0 up type bridge\naddr add 10.96.0.80/32 dev kube-ipvs0")?;
        cluster.start_agents(&[&near])?;
        let names = address(UDP_V4)?;
        let meets = |cluster: &ServiceCluster, wanted: &str| -> Result<()> {
            for namespace in [&client.namespace, &node] {
                // A server that listens at all addresses answers from the node's first one.
                let answer =
                    namespace.run(|| exchange(&udp_socket(any_like(names, 0))?, names, "name"))?;
                let answer = answer.context("no answer")?;
                ensure!(answer.pod == wanted, "{}: {answer:?}", namespace.name());
            }
            let status = cluster.agents[0].waggle("status")?;
            let is_said = status.contains("10.96.0.80 is on a device of this node");
            ensure!(is_said == (wanted == "cache"), "{status}");
            Ok(())
        };
        meets(cluster, "near")?;
        let _cache = UdpServer::start(&node, "cache", names.port())?;
        node.ip("link del kube-ipvs0\nlink add nodelocaldns up type bridge\naddr add 10.96.0.80/32 dev nodelocaldns")?;
        let agent = &cluster.agents[0];
        let is_there = |text: &str| text.contains("10.96.0.80");
        agent.wait_until("get services", |text| !is_there(text))?;
        meets(cluster, "cache")?;
        // The other family has its address still.
        node.ip("link del nodelocaldns")?;
        agent.wait_until("get services", is_there)?;
        meets(cluster, "near")?;
        tcp_meets_exactly(&client.namespace, address(WEB_V4)?, &[&near])
    })
}

#[test]
fn a_balancers_address_that_the_node_has_lets_its_own_processes_in() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let service = format!(
            "kind: Service
metadata: {{name: balanced, namespace: default}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  clusterIP: 10.96.0.81
  loadBalancerSourceRanges: [192.0.2.0/24]
  ports: [{{port: 80, targetPort: {HTTP_PORT}}}]
status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.80}}]}}}}
"
        );
        cluster.state.apply("balanced", &service)?;
        cluster.start_agents(&[&near])?;
        let node = cluster.cluster.node(1).namespace.clone();
        let balancer = address("203.0.113.80:80")?;
        ensure!(
            dial(&node, balancer, SILENCE)?.is_some(),
            "the node's address is not in the range"
        );
        node.ip("addr add 203.0.113.80/32 dev lo")?;
        let mut left = 50;
        while dial(&node, balancer, SILENCE)?.is_some() {
            left -= 1;
            ensure!(left > 0, "the balancer's own address may always come");
            std::thread::sleep(Duration::from_millis(100));
        }
        tcp_meets_exactly(&node, balancer, &[&near])
    })
}
