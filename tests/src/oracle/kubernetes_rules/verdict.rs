//! What becomes of a packet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::endpoints::{Eligible, eligible};
use super::service_ports::{ServicePort, service_ports};
use super::{Answer, Family, Node, Objects, Place, Question};

/// What the rules say of a packet.
pub fn answer(objects: &Objects, node: &Node, question: &Question) -> Answer {
    let family = Family::of(question.destination.ip());
    let all = service_ports(objects, node, family);
    let to = question.destination;
    let ours = || all.iter().filter(|it| it.protocol == question.protocol);

    if ours().any(|port| port.balancers.contains(&to) && !is_let_in(port, node, question.source)) {
        return Answer::Drop;
    }
    let is_at_cluster_ip = all.iter().any(|port| port.cluster.ip() == to.ip());
    let masquerade = is_at_cluster_ip
        && (node.masquerade_all || knows_pods(node, question) && !is_pod(node, question));
    let dialled = ours().find_map(|port| Some((port, dialled(port, node, to)?)));
    if let Some((port, door)) = dialled {
        let endpoints = eligible(objects, node, port, family);
        return serve(port, door, &endpoints, node, question, masquerade);
    }
    if is_at_cluster_ip {
        return Answer::Reject;
    }
    if node.service_cidrs.iter().any(|it| it.contains(to.ip())) {
        return Answer::Drop;
    }
    Answer::Pass
}

/// By which door a packet comes to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Cluster,
    External,
}

fn dialled(port: &ServicePort<'_>, node: &Node, to: SocketAddr) -> Option<Door> {
    let mut primary = node.addresses.iter();
    let primary = primary.find(|it| it.is_ipv4() == to.is_ipv4());
    let is_node_port = primary == Some(&to.ip()) && port.node_port == Some(to.port());
    if port.cluster == to {
        Some(Door::Cluster)
    } else if port.balancers.contains(&to) || port.external.contains(&to) || is_node_port {
        Some(Door::External)
    } else {
        None
    }
}

fn serve(
    port: &ServicePort<'_>,
    door: Door,
    endpoints: &Eligible,
    node: &Node,
    question: &Question,
    masquerade: bool,
) -> Answer {
    let go = |candidates: &BTreeSet<SocketAddr>, masquerade| Answer::Dnat {
        candidates: candidates.clone(),
        local: endpoints.here.clone(),
        masquerade,
    };
    if !endpoints.is_anybody {
        return Answer::Reject;
    }
    let is_local = match door {
        Door::Cluster => port.is_internal_local,
        Door::External => port.is_external_local,
    };
    if !is_local {
        let masquerade = masquerade || door == Door::External;
        return go(&endpoints.cluster, masquerade);
    }
    if door == Door::External {
        // Who is inside is served as if he had gone out and come back by another node's door.
        if is_pod(node, question) {
            return go(&endpoints.cluster, masquerade);
        }
        if question.place == Place::Host {
            return go(&endpoints.cluster, true);
        }
    }
    if endpoints.local.is_empty() {
        return Answer::Drop;
    }
    go(&endpoints.local, masquerade)
}

/// The node itself may pass by its balancer's address if its own is let in.
fn is_let_in(port: &ServicePort<'_>, node: &Node, source: SocketAddr) -> bool {
    let source = source.ip();
    let ranges = &port.source_ranges;
    let is_in = |address: IpAddr| ranges.iter().any(|range| range.contains(address));
    let mut node_addresses = node.addresses.iter();
    let primary = node_addresses.find(|it| it.is_ipv4() == source.is_ipv4());
    let is_own_balancer = port.balancers.iter().any(|it| it.ip() == source);
    ranges.is_empty() || is_in(source) || is_own_balancer && primary.is_some_and(|it| is_in(*it))
}

fn knows_pods(node: &Node, question: &Question) -> bool {
    let mut prefixes = node.cluster_cidrs.iter();
    prefixes.any(|prefix| prefix.is_like(question.source.ip()))
}

fn is_pod(node: &Node, question: &Question) -> bool {
    let mut prefixes = node.cluster_cidrs.iter();
    prefixes.any(|prefix| prefix.contains(question.source.ip()))
}
