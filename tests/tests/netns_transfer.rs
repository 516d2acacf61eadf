//! Large transfers arrive byte by byte: with segments that the "hardware" cuts (GSO, checksums left
//! to it), with every checksum made in software, and with checksums that a later device has to finish.

use std::fs;

use anyhow::{Result, ensure};
use tests::cluster::service_cluster::{ServiceCluster, WEB_V4, WEB_V6, with_services};
use tests::cluster::topology::PodNetwork;
use tests::machine::require;
use tests::machine::scratch::Scratch;
use tests::traffic::download::{download, pattern, upload};

/// 50 MB, and not a multiple of any segment.
const LENGTH: usize = 50_000_003;

/// Who makes checksums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sums {
    /// Nobody: packets do not leave the machine.
    Never,
    /// The senders.
    Senders,
    /// The devices by which packets leave the node for a pod: until then a packet's sum is not finished.
    LastDevices,
}

/// Sends and fetches a file from a pod and from the node, to a backend of this and of the other node.
fn transfers_are_byte_exact(cluster: &mut ServiceCluster, server: u8, sums: Sums) -> Result<()> {
    let serving = cluster.add_serving_pod(server, "store", 2)?;
    let client = cluster.cluster.add_pod(1, "client", 9)?;
    cluster.start_agents(&[&serving])?;
    for pod in [&client, &serving.pod] {
        if sums == Sums::Senders {
            pod.namespace
                .output("ethtool", &["-K", "eth0", "tx", "off"])?;
        }
        if sums != Sums::Never {
            let node = &cluster.cluster.node(pod.node).namespace;
            node.output("ethtool", &["-K", &pod.interface, "tx", "off"])?;
        }
    }
    let bytes = pattern(LENGTH);
    let scratch = Scratch::new()?;
    let sent = scratch.write("sent", &bytes)?;
    let received = scratch.path().join("received");
    let node = cluster.cluster.node(1).namespace.clone();
    for (namespace, frontend) in [
        (&client.namespace, WEB_V4),
        (&client.namespace, WEB_V6),
        (&node, WEB_V4),
    ] {
        let url = format!("http://{frontend}/files/blob");
        upload(namespace, &sent, &url)?;
        let stored = serving.nginx.files().join("blob");
        ensure!(fs::read(&stored)? == bytes, "the upload to {url} differs");
        download(namespace, &url, &received)?;
        ensure!(
            fs::read(&received)? == bytes,
            "the download from {url} differs"
        );
        fs::remove_file(stored)?;
    }
    Ok(())
}

#[test]
fn fifty_megabytes_through_a_service_arrive_unchanged() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        transfers_are_byte_exact(cluster, 1, Sums::Never)
    })
}

#[test]
fn fifty_megabytes_to_another_node_arrive_unchanged_over_vxlan() -> Result<()> {
    with_services(PodNetwork::Vxlan, |cluster| {
        transfers_are_byte_exact(cluster, 2, Sums::Never)
    })
}

#[test]
fn fifty_megabytes_with_checksums_in_software_arrive_unchanged() -> Result<()> {
    if !require::optional(require::has_program("ethtool"), "needs ethtool") {
        return Ok(());
    }
    with_services(
        PodNetwork::Bridged {
            bridge_netfilter: false,
        },
        |cluster| transfers_are_byte_exact(cluster, 2, Sums::Senders),
    )
}

#[test]
fn fifty_megabytes_whose_checksums_the_last_device_finishes_arrive_unchanged() -> Result<()> {
    if !require::optional(require::has_program("ethtool"), "needs ethtool") {
        return Ok(());
    }
    with_services(PodNetwork::Routed, |cluster| {
        transfers_are_byte_exact(cluster, 1, Sums::LastDevices)
    })
}
