//! Which addresses and ports a service port is reachable at.
use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{ClientScope, FrontendFlags};

use crate::{
    desired::Frontend,
    model::{Family, Place, Service, ServicePort, TrafficPolicy},
};

/// The frontends of one port in one family whose clients get endpoints by this policy: its cluster address, and for
/// the outside its external addresses and the node port at those addresses of the node that serve node ports.
///
/// Clients of an external address get the node's address as their source where the backend may be on another node, for
/// the reply has to come back by this one; with the policy `Local` it is here, and sees the client's own address. Clients
/// inside the cluster have no part in that policy: from them an external address is served as if they had gone out and
/// come back by another node's (as kube-proxy does it).
pub(super) fn frontends(
    service: &Service,
    port: &ServicePort,
    family: Family,
    policy: TrafficPolicy,
    place: &Place,
) -> BTreeMap<Frontend, FrontendFlags> {
    let mut frontends = BTreeMap::new();
    // A Service has the families of its cluster addresses: slices of the other one are nobody's.
    let Some(cluster_ip) = service.cluster_ip(family) else {
        return frontends;
    };
    let mut insert = |address: IpAddr, port_number: u16, scope, flags| {
        let frontend = Frontend {
            address,
            port: port_number,
            protocol: port.protocol,
            scope,
        };
        frontends.insert(frontend, flags);
    };
    let external = match (service.external_policy, policy) {
        (TrafficPolicy::Cluster, TrafficPolicy::Cluster) => {
            Some((ClientScope::Everybody, FrontendFlags::MASQUERADE))
        }
        (TrafficPolicy::Local, TrafficPolicy::Local) => {
            Some((ClientScope::Everybody, FrontendFlags::INSIDE_ELSEWHERE))
        }
        (TrafficPolicy::Local, TrafficPolicy::Cluster) => {
            Some((ClientScope::Inside, FrontendFlags::NONE))
        }
        (TrafficPolicy::Cluster, TrafficPolicy::Local) => None,
    };
    if let Some((scope, flags)) = external {
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let external = service.external_ips.iter();
        let external = external.filter(|_| !place.ignore_external_ips);
        for address in external.filter(of_family) {
            insert(*address, port.port, scope, flags);
        }
        let balancer_flags = flags.with(limits(service, family, place));
        for address in service.balancer_ips.iter().filter(of_family) {
            insert(*address, port.port, scope, balancer_flags);
        }
        if let Some(node_port) = port.node_port {
            for address in place.node_port_addresses(family) {
                let flags = if address.is_loopback() {
                    flags.with(FrontendFlags::PROCESSES_ONLY)
                } else {
                    flags
                };
                insert(address, node_port, scope, flags);
            }
        }
    }
    if service.internal_policy == policy {
        let flags = if place.masquerade_all {
            FrontendFlags::MASQUERADE
        } else if place.knows_pods(family) {
            FrontendFlags::MASQUERADE_STRANGERS
        } else {
            FrontendFlags::NONE
        };
        insert(cluster_ip, port.port, ClientScope::Everybody, flags);
    }
    frontends
}

/// What `loadBalancerSourceRanges` say of the load balancer's addresses. They hold for everybody, inside and outside; the
/// node's own processes dial with the node's address.
fn limits(service: &Service, family: Family, place: &Place) -> FrontendFlags {
    let Some(ranges) = service.ranges(family) else {
        return FrontendFlags::NONE;
    };
    let node = place.primary_address(family);
    let is_node_within = node.is_some_and(|node| ranges.iter().any(|it| it.contains(&node)));
    if is_node_within {
        FrontendFlags::SOURCE_RANGES
    } else {
        FrontendFlags::SOURCE_RANGES.with(FrontendFlags::NODE_EXCLUDED)
    }
}
