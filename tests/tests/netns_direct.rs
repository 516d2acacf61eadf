//! One client port, a Service and one of its pods: the connection to the Service and the direct one both work, in either
//! order, closed or alive.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::cluster::service_cluster::{HTTP_PORT, UDP_PORT, WEB_V4, with_services};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::packets::socket_option::connect_from;
use tests::traffic::client::{http_get, http_get_on};
use tests::traffic::one_port::{talk_in_turn, talk_over_tcp, talk_over_udp};

/// Further lines of a Service: requests from outside keep their source.
const KEEPS_SOURCE: &str = "
  externalTrafficPolicy: Local
  externalIPs: [203.0.113.7, '2001:db8::7']
";

/// A port that no other part of the test has used.
struct Ports(u16);

impl Ports {
    fn next(&mut self) -> u16 {
        self.0 += 1;
        self.0
    }
}

/// Asks the Service and the pod itself from one port, in all ways.
fn ask_both(
    client: &Namespace,
    ports: &mut Ports,
    service: [SocketAddr; 2],
    pod: [SocketAddr; 2],
) -> Result<()> {
    let ([web, dns], [pod_web, pod_dns]) = (service, pod);
    for [one, other] in [[web, pod_web], [pod_web, web]] {
        talk_over_tcp(client, ports.next(), [one, other]).context("both alive")?;
        talk_in_turn(client, ports.next(), &[one, other, one]).context("the first one closed")?;
    }
    for order in [[dns, pod_dns], [pod_dns, dns]] {
        talk_over_udp(client, ports.next(), &order)?;
    }
    Ok(())
}

fn one_port_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        cluster.add_node_ports(KEEPS_SOURCE)?;
        let pod = cluster.add_serving_pod(1, "pod", 2)?;
        let near = cluster.cluster.add_pod(1, "near", 9)?;
        let far = cluster.cluster.add_pod(2, "far", 9)?;
        cluster.start_agents(&[&pod])?;
        let node = cluster.cluster.node(1);
        let mut ports = Ports(40_000);
        for [cluster_ip, node, external, address] in [
            [
                "10.96.0.81".parse()?,
                node.v4().into(),
                "203.0.113.7".parse()?,
                pod.pod.v4.into(),
            ],
            [
                "fd00:10:96::81".parse()?,
                IpAddr::from(node.v6()),
                "2001:db8::7".parse()?,
                pod.pod.v6.into(),
            ],
        ] {
            let direct = [(address, HTTP_PORT).into(), (address, UDP_PORT).into()];
            for (client, is_far) in [(&near.namespace, false), (&far.namespace, true)] {
                let all = [
                    [(cluster_ip, 80), (cluster_ip, 53)],
                    [(node, 30_080), (node, 30_053)],
                    [(external, 80), (external, 53)],
                ];
                // The policy of the last is Local, and where nothing tells pods by their address they are outside.
                let count = if is_far { 2 } else { 3 };
                for service in all.into_iter().take(count) {
                    let service = service.map(SocketAddr::from);
                    ask_both(client, &mut ports, service, direct)
                        .with_context(|| format!("{client:?} by {service:?}"))?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn one_port_talks_to_a_service_and_to_its_pod() -> Result<()> {
    one_port_over(PodNetwork::Routed)
}

#[test]
fn one_port_talks_to_a_service_and_to_its_bridged_pod() -> Result<()> {
    one_port_over(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn ports_that_come_back_after_many_connections_to_a_service_reach_its_pod() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pod = cluster.add_serving_pod(1, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&pod])?;
        let limit = Duration::from_secs(5);
        let ask = |to: SocketAddr, times: usize| {
            for number in 0..times {
                http_get(to, limit)
                    .map_err(anyhow::Error::from)
                    .with_context(|| format!("request {number} to {to}"))?;
            }
            anyhow::Ok(())
        };
        client.namespace.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40499")?;
            ask(WEB_V4.parse()?, 400)?;
            ask((pod.pod.v4, HTTP_PORT).into(), 100)
        })
    })
}

#[test]
fn a_port_that_a_process_of_the_node_uses_is_no_masquerade_port_and_the_other_way_round()
-> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        cluster.add_node_ports("")?;
        let pod = cluster.add_serving_pod(1, "pod", 2)?;
        cluster.start_agents(&[&pod])?;
        let node = cluster.cluster.node(1);
        let outside = &cluster.cluster.outside;
        // Ports that clients outside keep where they can.
        for (number, of_node, of_pod) in [
            (0, IpAddr::from(node.v4()), IpAddr::from(pod.pod.v4)),
            (10, node.v6().into(), pod.pod.v6.into()),
        ] {
            let service: SocketAddr = (of_node, 30_080).into();
            let direct: SocketAddr = (of_pod, HTTP_PORT).into();
            let port = 17_001 + number;
            let hold = |namespace: &Namespace, to: SocketAddr, port: u16| {
                namespace
                    .run(|| connect_from(port, to))
                    .with_context(|| format!("{port} to {to}"))
            };
            let ask = |streams: [&mut TcpStream; 2]| -> Result<()> {
                for stream in streams {
                    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                    for round in 0..3 {
                        http_get_on(stream, true)
                            .with_context(|| format!("round {round} of {stream:?}"))?;
                    }
                }
                Ok(())
            };
            let mut of_process = hold(&node.namespace, direct, port)?;
            let mut of_client = hold(outside, service, port)?;
            ask([&mut of_process, &mut of_client]).context("the process of the node was first")?;
            let mut of_client = hold(outside, service, port + 1)?;
            let mut of_process = hold(&node.namespace, direct, port + 1)?;
            ask([&mut of_client, &mut of_process]).context("the client outside was first")?;
        }
        Ok(())
    })
}
