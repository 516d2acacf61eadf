//! The harness itself: every kind of pod network carries real traffic before any Service does.

use anyhow::{Result, ensure};
use tests::cluster::nginx::{Nginx, Settings};
use tests::cluster::topology::{Cluster, PodNetwork};
use tests::traffic::client::{curl, url};
use tests::traffic::udp::{UdpServer, any_like, exchange};

fn pods_reach_each_other(network: PodNetwork) -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let cluster = Cluster::new(network)?;
    let near = cluster.add_pod(1, "near", 2)?;
    let far = cluster.add_pod(2, "far", 3)?;
    let client = cluster.add_pod(1, "client", 4)?;
    let mut servers = Vec::new();
    for pod in [&near, &far] {
        servers.push(Nginx::start(
            &pod.namespace,
            &pod.name,
            Settings::default(),
        )?);
    }
    let _udp = UdpServer::start(&far.namespace, "far", 5353)?;
    for namespace in [
        &client.namespace,
        &cluster.node(1).namespace,
        &cluster.outside,
    ] {
        for pod in [&near, &far] {
            for address in [pod.socket_v4(80), pod.socket_v6(80)] {
                let answers = curl(namespace, &url(address), 2)?;
                let expected = if address.is_ipv4() {
                    format!("{} {}", pod.name, pod.v4)
                } else {
                    format!("{} {}", pod.name, pod.v6)
                };
                ensure!(answers.get(&expected) == Some(&2), "{answers:?}");
            }
        }
    }
    for to in [far.socket_v4(5353), far.socket_v6(5353)] {
        let answer = client.namespace.run(|| {
            let socket = std::net::UdpSocket::bind(any_like(to, 0))?;
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
            exchange(&socket, to, "hello")
        })?;
        ensure!(answer.is_some_and(|answer| answer.pod == "far" && answer.from == to));
    }
    Ok(())
}

#[test]
fn routed_pods_reach_each_other() -> Result<()> {
    pods_reach_each_other(PodNetwork::Routed)
}

#[test]
fn point_to_point_pods_reach_each_other() -> Result<()> {
    pods_reach_each_other(PodNetwork::PointToPoint)
}

#[test]
fn bridged_pods_reach_each_other() -> Result<()> {
    pods_reach_each_other(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn vxlan_pods_reach_each_other() -> Result<()> {
    pods_reach_each_other(PodNetwork::Vxlan)
}

#[test]
fn a_deleted_pod_takes_its_interface_along_and_its_address_can_come_again() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let cluster = Cluster::new(PodNetwork::Routed)?;
    let pod = cluster.add_pod(1, "first", 2)?;
    drop(pod);
    let links = cluster.node(1).namespace.output("ip", &["-o", "link"])?;
    ensure!(!links.contains("veth2"), "{links}");
    cluster.add_pod(1, "second", 2)?;
    Ok(())
}
