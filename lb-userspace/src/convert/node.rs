//! Node.
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    model::{Family, Node},
    objects,
};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// A Node as the agent sees it.
pub fn node(object: &objects::Node) -> Node {
    let mut taints = object.spec.taints.iter();
    let leaving = object.metadata.deletion_timestamp.is_some()
        || taints.any(|taint| taint.key == LEAVING_TAINT);
    Node {
        name: object.metadata.name.clone().unwrap_or_default(),
        zone: object.metadata.labels.get(ZONE_LABEL).cloned(),
        addresses: addresses(object),
        pod_cidrs: pod_cidrs(object),
        leaving,
    }
}

/// Its own addresses, the first of each family: internal ones before external ones.
fn addresses(object: &objects::Node) -> Vec<IpAddr> {
    let written = &object.status.addresses;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for kind in ["InternalIP", "ExternalIP"] {
        let of_kind = written.iter().filter(|it| it.kind == kind);
        for address in of_kind.filter_map(|it| it.address.parse::<IpAddr>().ok()) {
            let is_first = addresses
                .iter()
                .all(|known| Family::of(*known) != Family::of(address));
            addresses.extend(is_first.then_some(address));
        }
    }
    addresses
}

/// Where its pods have their addresses; what is no prefix is nothing to go by.
fn pod_cidrs(object: &objects::Node) -> Vec<IpNet> {
    let mut written = object.spec.pod_cidrs.clone();
    if written.is_empty() {
        written.extend(object.spec.pod_cidr.clone());
    }
    let prefixes = written.iter().filter_map(|text| text.parse::<IpNet>().ok());
    prefixes.map(|prefix| prefix.trunc()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_autoscalers_taint_says_that_the_node_leaves() {
        let object = json!({
            "metadata": {"name": "node-1", "labels": {ZONE_LABEL: "a"}},
            "spec": {
                "taints": [{"key": LEAVING_TAINT, "effect": "NoSchedule"}],
                "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
            },
        });
        let node = node(&serde_json::from_value(object).unwrap());
        assert_eq!((node.zone.as_deref(), node.leaving), (Some("a"), true));
        let pods = ["10.244.1.0/24", "fd00:10:244:1::/64"];
        assert_eq!(node.pod_cidrs, pods.map(|it| it.parse().unwrap()));
    }
}
