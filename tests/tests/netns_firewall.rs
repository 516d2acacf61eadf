//! Netfilter on the node sees ordinary flows: a rule against invalid packets does no harm, and a rule
//! against a pod still stops what comes through a Service.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::checks::a_rule_against_invalid_packets_is_harmless_over;
use tests::cluster::expect::tcp_meets_exactly;
use tests::cluster::service_cluster::{WEB_V4, WEB_V6, address, with_services};
use tests::cluster::topology::PodNetwork;
use tests::traffic::client::{HttpFailure, http_get};

#[test]
fn a_rule_against_invalid_packets_is_harmless_over_a_routed_network() -> Result<()> {
    a_rule_against_invalid_packets_is_harmless_over(PodNetwork::Routed)
}

#[test]
fn a_rule_against_invalid_packets_is_harmless_over_a_bridge() -> Result<()> {
    a_rule_against_invalid_packets_is_harmless_over(PodNetwork::Bridged {
        bridge_netfilter: false,
    })
}

#[test]
fn a_rule_against_invalid_packets_is_harmless_over_a_vxlan_overlay() -> Result<()> {
    a_rule_against_invalid_packets_is_harmless_over(PodNetwork::Vxlan)
}

#[test]
fn a_policy_that_forbids_a_pod_stops_service_traffic_to_it() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let guarded = cluster.add_serving_pod(1, "guarded", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let friend = cluster.cluster.add_pod(1, "friend", 10)?;
        cluster.start_agents(&[&guarded])?;
        for frontend in [WEB_V4, WEB_V6] {
            tcp_meets_exactly(&client.namespace, address(frontend)?, &[&guarded])?;
        }
        let (to_v4, to_v6) = (guarded.pod.v4, guarded.pod.v6);
        let (from_v4, from_v6) = (friend.v4, friend.v6);
        cluster.cluster.node(1).namespace.nft(&format!(
            "table inet network_policy {{
                chain forward {{
                    type filter hook forward priority 0; policy accept;
                    ip saddr != {from_v4} ip daddr {to_v4} drop
                    ip6 saddr != {from_v6} ip6 daddr {to_v6} drop
                }}
            }}"
        ))?;
        for frontend in [WEB_V4, WEB_V6] {
            let frontend = address(frontend)?;
            let result = client
                .namespace
                .run(|| Ok(http_get(frontend, Duration::from_secs(1))))?;
            ensure!(
                result == Err(HttpFailure::TimedOut("connect")),
                "the policy was passed by: {result:?}"
            );
            tcp_meets_exactly(&friend.namespace, frontend, &[&guarded])?;
        }
        Ok(())
    })
}
