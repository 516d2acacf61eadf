//! Whole tests that several suites make over different networks.

use anyhow::{Result, ensure};

use crate::cluster::expect::{tcp_meets_exactly, udp_meets_exactly};
use crate::cluster::service_cluster::{
    ServiceCluster, UDP_V4, UDP_V6, WEB_V4, WEB_V6, address, with_services,
};
use crate::cluster::topology::PodNetwork;

/// From pods on both nodes to backends on both nodes, by TCP and UDP in both families.
pub fn pods_meet_all_backends_over(network: PodNetwork) -> Result<()> {
    with_services(network, pods_meet_all_backends)
}

/// The same on a cluster that has been prepared.
pub fn pods_meet_all_backends(cluster: &mut ServiceCluster) -> Result<()> {
    let one = cluster.add_serving_pod(1, "one", 2)?;
    let two = cluster.add_serving_pod(2, "two", 2)?;
    let three = cluster.add_serving_pod(2, "three", 3)?;
    let clients = [
        cluster.cluster.add_pod(1, "client1", 9)?,
        cluster.cluster.add_pod(2, "client2", 9)?,
    ];
    let pods = [&one, &two, &three];
    cluster.start_agents(&pods)?;
    for client in &clients {
        for frontend in [WEB_V4, WEB_V6] {
            tcp_meets_exactly(&client.namespace, address(frontend)?, &pods)?;
        }
        for frontend in [UDP_V4, UDP_V6] {
            let frontend = address(frontend)?;
            let seen = udp_meets_exactly(&client.namespace, frontend, &pods)?;
            let own = client.address_like(frontend.ip());
            ensure!(
                seen.iter().all(|seen| *seen == own),
                "backends saw {seen:?} in place of the client {own}"
            );
        }
    }
    Ok(())
}

/// Conntrack calls no packet of a Service invalid: nothing is dropped, nothing is counted.
pub fn a_rule_against_invalid_packets_is_harmless_over(network: PodNetwork) -> Result<()> {
    with_services(network, |cluster| {
        for node in cluster.cluster.nodes() {
            node.namespace.nft(DROP_INVALID)?;
        }
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let pods = [&near, &far];
        cluster.start_agents(&pods)?;
        // The pods themselves are clients too: hairpin flows are among them.
        for client in [&client, &near.pod, &far.pod] {
            for frontend in [WEB_V4, WEB_V6] {
                tcp_meets_exactly(&client.namespace, address(frontend)?, &pods)?;
            }
            for frontend in [UDP_V4, UDP_V6] {
                udp_meets_exactly(&client.namespace, address(frontend)?, &pods)?;
            }
        }
        for node in cluster.cluster.nodes() {
            let counter = ["list", "counter", "inet", "hardened", "invalid"];
            let text = node.namespace.output("nft", &counter)?;
            ensure!(text.contains("packets 0 "), "{}: {text}", node.name());
        }
        Ok(())
    })
}

/// What kube-proxy and hardened hosts have: conntrack's invalid packets are dropped and counted.
const DROP_INVALID: &str = "
table inet hardened {
    counter invalid { }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state invalid counter name invalid drop
    }
    chain input {
        type filter hook input priority 0; policy accept;
        ct state invalid counter name invalid drop
    }
}";
