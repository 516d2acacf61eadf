//! Processes in a node's own namespace: their sockets dial the frontend, packets carry the backend,
//! and the sockets go on showing the frontend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::expect::{ask_udp, tcp_meets_exactly, udp_meets_exactly, udp_socket};
use tests::cluster::nginx::{Nginx, Settings};
use tests::cluster::service_cluster::{
    ServiceCluster, ServingPod, UDP_V4, UDP_V6, WEB_V4, WEB_V6, address, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::traffic::client::http_get_on;
use tests::traffic::udp::{any_like, exchange, exchange_connected};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A backend on each node.
fn start(cluster: &mut ServiceCluster) -> Result<[ServingPod; 2]> {
    let near = cluster.add_serving_pod(1, "near", 2)?;
    let far = cluster.add_serving_pod(2, "far", 2)?;
    cluster.start_agents(&[&near, &far])?;
    Ok([near, far])
}

/// The same address as `::ffff:a.b.c.d`, which dual-stack programs dial.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

#[test]
fn a_process_of_the_node_meets_all_backends() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [near, far] = start(cluster)?;
        for node in cluster.cluster.nodes() {
            for frontend in [WEB_V4, WEB_V6] {
                tcp_meets_exactly(&node.namespace, address(frontend)?, &[&near, &far])?;
            }
            for frontend in [UDP_V4, UDP_V6] {
                udp_meets_exactly(&node.namespace, address(frontend)?, &[&near, &far])?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_tcp_socket_of_the_node_shows_the_frontend_as_its_peer() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let _pods = start(cluster)?;
        let (v4, v6) = (address(WEB_V4)?, address(WEB_V6)?);
        for dialled in [v4, v6, mapped(v4)] {
            cluster.cluster.node(1).namespace.run(|| {
                let mut stream = TcpStream::connect_timeout(&dialled, CONNECT_LIMIT)
                    .with_context(|| format!("connect to {dialled}"))?;
                stream.set_read_timeout(Some(CONNECT_LIMIT))?;
                let peer = stream.peer_addr()?;
                ensure!(
                    peer == dialled,
                    "getpeername says {peer}, dialled {dialled}"
                );
                http_get_on(&mut stream, false)?;
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_connected_udp_socket_of_the_node_shows_the_frontend_as_its_peer() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let _pods = start(cluster)?;
        let (v4, v6) = (address(UDP_V4)?, address(UDP_V6)?);
        for dialled in [v4, v6, mapped(v4)] {
            cluster.cluster.node(1).namespace.run(|| {
                let socket = udp_socket(any_like(dialled, 0))?;
                socket.connect(dialled)?;
                let peer = socket.peer_addr()?;
                ensure!(
                    peer == dialled,
                    "getpeername says {peer}, dialled {dialled}"
                );
                let answer = exchange_connected(&socket, "hello")?
                    .with_context(|| format!("no answer over {dialled}"))?;
                ensure!(
                    answer.from == dialled,
                    "{dialled} answered as {}",
                    answer.from
                );
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn an_unconnected_udp_socket_of_the_node_gets_answers_from_the_frontend() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let _pods = start(cluster)?;
        let (v4, v6) = (address(UDP_V4)?, address(UDP_V6)?);
        cluster.cluster.node(1).namespace.run(|| {
            // One dual-stack socket for both families, as Java and Go open it.
            let dual = udp_socket((Ipv6Addr::UNSPECIFIED, 0).into())?;
            let plain = udp_socket((Ipv4Addr::UNSPECIFIED, 0).into())?;
            for (socket, to) in [(&plain, v4), (&dual, v6), (&dual, mapped(v4))] {
                for number in 0..20 {
                    let answer = exchange(socket, to, &number.to_string())?
                        .with_context(|| format!("no answer from {to}"))?;
                    ensure!(answer.from == to, "{to} answered as {}", answer.from);
                }
            }
            Ok(())
        })
    })
}

#[test]
fn datagrams_that_are_for_no_service_are_untouched() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let [near, _far] = start(cluster)?;
        let node = cluster.cluster.node(1);
        for direct in [near.pod.socket_v4(5353), near.pod.socket_v6(5353)] {
            let answer = ask_udp(&node.namespace, direct, "direct")?;
            ensure!(answer.pod == "near");
        }
        Ok(())
    })
}

#[test]
fn processes_of_other_namespaces_are_untouched() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let _pods = start(cluster)?;
        let outside = &cluster.cluster.outside;
        outside.ip("addr add 10.96.0.80/32 dev lo\n\
             addr add fd00:10:96::80/128 dev lo nodad")?;
        let _stranger = Nginx::start(outside, "stranger", Settings::default())?;
        for frontend in [WEB_V4, WEB_V6] {
            let answers = tests::traffic::client::http_gets(outside, address(frontend)?, 20)?;
            ensure!(
                answers.keys().all(|answer| answer.starts_with("stranger ")),
                "the hooks of a node translated a call of another namespace: {answers:?}"
            );
        }
        Ok(())
    })
}
