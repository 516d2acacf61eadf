//! IPv4 options and IPv6 extension headers: TCP and UDP behind them are found and translated.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::expect::udp_socket;
use tests::cluster::service_cluster::{UDP_V4, UDP_V6, WEB_V4, WEB_V6, address, with_services};
use tests::cluster::topology::PodNetwork;
use tests::packets::socket_option::{Extra, add_to_udp, connect_tcp};
use tests::traffic::client::http_get_on;
use tests::traffic::udp::{any_like, exchange};

/// How often each is tried: the backends are on two nodes, chosen at random.
const TIMES: usize = 12;

/// Counts, on node 1, packets to the pods that carry options or extension headers.
const COUNT: &str = "
table inet headers {
    counter v4 { }
    counter v6 { }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ip daddr 10.244.0.0/16 @nh,4,4 > 5 counter name v4
        ip6 daddr fd00:10:244::/48 ip6 nexthdr { 0, 60 } counter name v6
    }
}";

fn tcp_and_udp_work_with(extra: Extra, web: &str, udp: &str, counter: &str) -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&near, &far])?;
        let node = &cluster.cluster.node(1).namespace;
        node.nft(COUNT)?;
        let (web, udp): (SocketAddr, SocketAddr) = (address(web)?, address(udp)?);
        client.namespace.run(|| {
            for _ in 0..TIMES {
                let mut stream = connect_tcp(web, extra, Duration::from_secs(3))?;
                http_get_on(&mut stream, false)?;
            }
            for number in 0..TIMES {
                let socket = udp_socket(any_like(udp, 0))?;
                add_to_udp(&socket, extra)?;
                let answer = exchange(&socket, udp, &number.to_string())?
                    .with_context(|| format!("no answer to UDP with {extra:?}"))?;
                ensure!(answer.from == udp, "answered as {}", answer.from);
            }
            Ok(())
        })?;
        let text = node.output("nft", &["list", "counter", "inet", "headers", counter])?;
        ensure!(
            !text.contains("packets 0 "),
            "no such header was sent: {text}"
        );
        Ok(())
    })
}

#[test]
fn packets_with_ipv4_options_are_translated() -> Result<()> {
    tcp_and_udp_work_with(Extra::Ipv4Options, WEB_V4, UDP_V4, "v4")
}

#[test]
fn packets_with_a_hop_by_hop_header_are_translated() -> Result<()> {
    tcp_and_udp_work_with(Extra::HopByHop, WEB_V6, UDP_V6, "v6")
}

#[test]
fn packets_with_destination_options_are_translated() -> Result<()> {
    tcp_and_udp_work_with(Extra::Destination, WEB_V6, UDP_V6, "v6")
}

#[test]
fn packets_with_two_extension_headers_are_translated() -> Result<()> {
    tcp_and_udp_work_with(Extra::Both, WEB_V6, UDP_V6, "v6")
}
