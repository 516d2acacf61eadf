//! Which addresses and ports a service port is reachable at.
use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{ClientScope, FrontendFlags, Protocol};

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
///
/// A ClusterIP that is assigned to a device of the node is not a frontend: the process that listens at the address serves it,
/// for example `NodeLocal DNSCache` at the ClusterIP of the cluster's DNS.
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
    // TCP is translated at the socket. A cluster address has nothing but Services; an external one can be another
    // machine's, whose other ports a route to the device would take away.
    let is_at_device = |address| {
        place.has_node_device
            && port.protocol != Protocol::Tcp
            && address == cluster_ip
            && !place.has(address)
            && !place.ipvs_addresses.contains(&address)
    };
    let mut insert = |address: IpAddr, port_number: u16, scope, flags: FrontendFlags| {
        let flags = if is_at_device(address) {
            flags.with(FrontendFlags::AT_NODE_DEVICE)
        } else {
            flags
        };
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
        for address in service.balancer_ips.iter().filter(of_family) {
            let flags = flags.with(limits(service, family, place, *address));
            insert(*address, port.port, scope, flags);
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
    if service.internal_policy == policy && !place.local_addresses.contains(&cluster_ip) {
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

/// What `loadBalancerSourceRanges` say of a load balancer's address. They hold for everybody, inside and outside; the
/// node's own processes dial with the node's address, or with the balancer's own if the node has that: it may always come.
fn limits(service: &Service, family: Family, place: &Place, address: IpAddr) -> FrontendFlags {
    let Some(ranges) = service.ranges(family) else {
        return FrontendFlags::NONE;
    };
    let node = place.primary_address(family);
    let is_node_within = node.is_some_and(|node| ranges.iter().any(|it| it.contains(&node)));
    if is_node_within || place.local_addresses.contains(&address) {
        FrontendFlags::SOURCE_RANGES
    } else {
        FrontendFlags::SOURCE_RANGES.with(FrontendFlags::NODE_EXCLUDED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::service;

    #[test]
    fn udp_and_sctp_at_cluster_addresses_are_served_at_the_device() {
        let at = |text: &str| -> IpAddr { text.parse().unwrap() };
        let mut names = service("names", "10.96.0.10");
        names.balancer_ips = vec![at("203.0.113.1"), at("203.0.113.2")];
        names.external_ips = vec![at("203.0.113.3")];
        let place = Place {
            addresses: vec![at("192.0.2.1")],
            local_addresses: [at("192.0.2.1"), at("203.0.113.2")].into(),
            ipvs_addresses: [at("203.0.113.3")].into(),
            has_node_device: true,
            ..Place::default()
        };
        let at_device = |protocol, place: &Place| -> Vec<IpAddr> {
            let mut port = names.ports[0].clone();
            (port.protocol, port.node_port) = (protocol, Some(30_053));
            let policy = TrafficPolicy::Cluster;
            let frontends = frontends(&names, &port, Family::V4, policy, place).into_iter();
            let at_device = frontends.filter(|(_, it)| it.has(FrontendFlags::AT_NODE_DEVICE));
            at_device.map(|(frontend, _)| frontend.address).collect()
        };
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            assert_eq!(at_device(protocol, &place), [at("10.96.0.10")]);
        }
        assert!(at_device(Protocol::Tcp, &place).is_empty());
        let without = Place {
            has_node_device: false,
            ..place.clone()
        };
        let with_ipvs = Place {
            ipvs_addresses: [at("10.96.0.10")].into(),
            ..place
        };
        assert!(at_device(Protocol::Udp, &without).is_empty());
        assert!(at_device(Protocol::Udp, &with_ipvs).is_empty());
    }
}
