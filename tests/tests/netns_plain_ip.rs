//! Devices that are not a veth: without Ethernet (tun), and with packets whose headers are not
//! in one piece.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::expect::{tcp_meets_exactly, udp_meets_exactly, udp_socket};
use tests::cluster::service_cluster::{
    ServingPod, UDP_V4, UDP_V6, WEB_V4, WEB_V6, address, with_services,
};
use tests::cluster::topology::{Pod, PodNetwork};
use tests::machine::scratch::Scratch;
use tests::packets::tun::WireKind;
use tests::traffic::download::{download, pattern, upload};
use tests::traffic::udp::{any_like, exchange};

fn a_pod_on_a_wire_meets_all_backends(kind: WireKind) -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let node = cluster.cluster.node(1).clone();
        let client = node.add_pod_on_wire("client", 9, kind)?;
        let pods = [&near, &far];
        cluster.start_agents(&pods)?;
        for frontend in [WEB_V4, WEB_V6] {
            tcp_meets_exactly(&client.namespace, address(frontend)?, &pods)?;
        }
        for frontend in [UDP_V4, UDP_V6] {
            udp_meets_exactly(&client.namespace, address(frontend)?, &pods)?;
        }
        Ok(())
    })
}

#[test]
fn a_pod_behind_a_device_without_ethernet_meets_all_backends() -> Result<()> {
    a_pod_on_a_wire_meets_all_backends(WireKind::PlainIp)
}

#[test]
fn a_pod_whose_packets_come_in_pieces_meets_all_backends() -> Result<()> {
    a_pod_on_a_wire_meets_all_backends(WireKind::EthernetInPieces)
}

/// Sends long datagrams and a large file from a pod on a wire to a backend on the same node, all of
/// the way with room for 9000 bytes.
fn long_packets_arrive_over(kind: WireKind) -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let serving = cluster.add_serving_pod(1, "store", 2)?;
        let node = cluster.cluster.node(1).clone();
        let client = node.add_pod_on_wire("client", 9, kind)?;
        node.namespace
            .ip(&format!("link set {} mtu 9000", serving.pod.interface))?;
        serving.pod.namespace.ip("link set eth0 mtu 9000")?;
        cluster.start_agents(&[&serving])?;
        for frontend in [UDP_V4, UDP_V6] {
            let frontend = address(frontend)?;
            for length in [10, 100, 5000, 8000] {
                let text = "long ".repeat(length / 5);
                let answer = client.namespace.run(|| {
                    let socket = udp_socket(any_like(frontend, 0))?;
                    exchange(&socket, frontend, &text)
                })?;
                let answer = answer.with_context(|| format!("no answer to {length} bytes"))?;
                ensure!(answer.from == frontend, "answered as {}", answer.from);
            }
        }
        transfers_are_exact(&serving, &client)
    })
}

fn transfers_are_exact(serving: &ServingPod, client: &Pod) -> Result<()> {
    let bytes = pattern(3_000_017);
    let scratch = Scratch::new()?;
    let sent = scratch.write("sent", &bytes)?;
    let received = scratch.path().join("received");
    for frontend in [WEB_V4, WEB_V6] {
        let url = format!("http://{frontend}/files/blob");
        upload(&client.namespace, &sent, &url)?;
        let stored = serving.nginx.files().join("blob");
        ensure!(fs::read(&stored)? == bytes, "the upload to {url} differs");
        download(&client.namespace, &url, &received)?;
        ensure!(
            fs::read(&received)? == bytes,
            "the download from {url} differs"
        );
        fs::remove_file(stored)?;
    }
    Ok(())
}

#[test]
fn long_packets_in_one_piece_arrive_over_a_device_without_ethernet() -> Result<()> {
    long_packets_arrive_over(WireKind::PlainIp)
}

#[test]
fn long_packets_in_pieces_arrive_over_a_device_without_ethernet() -> Result<()> {
    long_packets_arrive_over(WireKind::PlainIpInPieces)
}

#[test]
fn long_packets_in_pieces_arrive_over_an_ethernet_device() -> Result<()> {
    long_packets_arrive_over(WireKind::EthernetInPieces)
}

#[test]
fn a_backend_behind_a_device_without_ethernet_answers() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let node = cluster.cluster.node(2).clone();
        let pod = node.add_pod_on_wire("wired", 2, WireKind::PlainIp)?;
        let wired = cluster.serve_in(pod)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&wired])?;
        // The wired pod reaches itself too: the masquerade at a device without Ethernet.
        for namespace in [&client.namespace, &node.namespace, &wired.pod.namespace] {
            meets_only(namespace, &wired, &[WEB_V4, WEB_V6], &[UDP_V4, UDP_V6])?;
        }
        Ok(())
    })
}

fn meets_only(
    namespace: &tests::machine::netns::Namespace,
    pod: &ServingPod,
    web: &[&str],
    udp: &[&str],
) -> Result<()> {
    for frontend in web {
        tcp_meets_exactly(namespace, address(frontend)?, &[pod])?;
    }
    for frontend in udp {
        udp_meets_exactly(namespace, address(frontend)?, &[pod])?;
    }
    Ok(())
}
