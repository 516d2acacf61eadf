//! Which addresses and ports a service port is reachable at.
use std::{collections::BTreeMap, net::IpAddr};

use lb_common::FrontendFlags;

use crate::{
    desired::Frontend,
    model::{Family, Place, Service, ServicePort, TrafficPolicy},
};

/// The frontends of one port in one family whose clients get endpoints by this policy: its cluster address, and for
/// the outside its external addresses and the node port at those addresses of the node that serve node ports.
///
/// Clients from outside get the node's address as their source where the backend may be on another node, for the reply
/// has to come back by this one; with the policy `Local` it is here, and sees the client's own address.
pub(super) fn frontends(
    service: &Service,
    port: &ServicePort,
    family: Family,
    policy: TrafficPolicy,
    place: &Place,
) -> BTreeMap<Frontend, FrontendFlags> {
    let at = |address: IpAddr, port_number: u16| Frontend {
        address,
        port: port_number,
        protocol: port.protocol,
    };
    let mut frontends = BTreeMap::new();
    if service.external_policy == policy {
        let flags = match policy {
            TrafficPolicy::Cluster => FrontendFlags::MASQUERADE,
            TrafficPolicy::Local => FrontendFlags::NONE,
        };
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let external = service
            .external_ips
            .iter()
            .filter(|_| !place.ignore_external_ips);
        let addresses = service.balancer_ips.iter().chain(external);
        for address in addresses.filter(of_family) {
            frontends.insert(at(*address, port.port), flags);
        }
        if let Some(node_port) = port.node_port {
            for address in place.node_port_addresses(family) {
                frontends.insert(at(address, node_port), flags);
            }
        }
    }
    if service.internal_policy == policy
        && let Some(address) = service.cluster_ip(family)
    {
        frontends.insert(at(address, port.port), FrontendFlags::NONE);
    }
    frontends
}
