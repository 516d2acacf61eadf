//! Which endpoints may take new flows, by the rules of kube-proxy (its `CategorizeEndpoints`; KEP-1669, KEP-2086,
//! KEP-2433, KEP-3015).
use std::{collections::BTreeSet, net::IpAddr};

use crate::model::{Endpoint, EndpointPort, EndpointSlice, Family, Place, Service, TrafficPolicy};

/// Whether an endpoint is ready, terminating but still serving, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// Never.
    Unfit,
    /// Only if nobody is ready.
    LastResort,
    /// Yes.
    Ready,
}

/// How fit an endpoint is. A terminating pod that still answers is the last resort: at the end of a rolling update of
/// a single replica there may be nobody else (KEP-1669). That a Service publishes endpoints that are not ready is said by
/// its slices, which call them ready.
pub(super) fn fitness(endpoint: &Endpoint) -> Fitness {
    if endpoint.ready {
        Fitness::Ready
    } else if endpoint.serving && endpoint.terminating {
        Fitness::LastResort
    } else {
        Fitness::Unfit
    }
}

/// Whether an endpoint runs on the node of these clients.
pub(super) fn is_local(endpoint: &Endpoint, place: &Place) -> bool {
    endpoint.node.as_ref() == Some(&place.node)
}

/// How many of a Service's endpoints of a family are ready on the node of these clients, whichever port they serve.
pub fn local_ready(
    service: &Service,
    slices: &[&EndpointSlice],
    family: Family,
    place: &Place,
) -> usize {
    let serves = |slice: &&&EndpointSlice| {
        let is_of = |target: &EndpointPort| {
            let mut ports = service.ports.iter();
            ports.any(|it| it.name == target.name && it.protocol == target.protocol)
        };
        slice.family == family && slice.ports.iter().any(is_of)
    };
    let endpoints = slices
        .iter()
        .filter(serves)
        .flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|it| is_local(it, place) && fitness(it) == Fitness::Ready);
    ready
        .map(|it| it.address)
        .collect::<BTreeSet<IpAddr>>()
        .len()
}

/// Whom endpoints are chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearness {
    /// Everybody.
    Anywhere,
    /// Clients of the node.
    SameNode,
    /// Clients of the zone.
    SameZone,
}

/// Decides over all endpoints of a service port who takes new flows; the answer has their order.
pub(super) fn eligible(
    policy: TrafficPolicy,
    endpoints: &[(Fitness, &Endpoint)],
    place: &Place,
) -> Vec<bool> {
    let may_serve = |endpoint: &Endpoint| match policy {
        TrafficPolicy::Cluster => true,
        TrafficPolicy::Local => is_local(endpoint, place),
    };
    let candidates = endpoints.iter().filter(|(_, it)| may_serve(it));
    let best = candidates.map(|(fitness, _)| *fitness).max();
    // Hints count among the ready; where nobody is, whoever still serves will do.
    let nearness = match (policy, best) {
        (TrafficPolicy::Cluster, Some(Fitness::Ready)) => nearness(endpoints, place),
        _ => Nearness::Anywhere,
    };
    let takes = |(fitness, endpoint): &(Fitness, &Endpoint)| {
        *fitness != Fitness::Unfit
            && Some(*fitness) == best
            && may_serve(endpoint)
            && is_meant_for(endpoint, nearness, place)
    };
    endpoints.iter().map(takes).collect()
}

/// Hints hold only if every ready endpoint has some: otherwise their author has not got to all of them yet, and those
/// that were left out would be overloaded elsewhere. They also hold only if somebody is meant for this place.
fn nearness(endpoints: &[(Fitness, &Endpoint)], place: &Place) -> Nearness {
    for nearness in [Nearness::SameNode, Nearness::SameZone] {
        let mut ready = endpoints
            .iter()
            .filter(|(fitness, _)| *fitness == Fitness::Ready)
            .map(|(_, endpoint)| *endpoint);
        let all_have_hints = ready.clone().all(|endpoint| match nearness {
            Nearness::SameNode => !endpoint.hints.nodes.is_empty(),
            Nearness::SameZone | Nearness::Anywhere => !endpoint.hints.zones.is_empty(),
        });
        if all_have_hints && ready.any(|endpoint| is_meant_for(endpoint, nearness, place)) {
            return nearness;
        }
    }
    Nearness::Anywhere
}

fn is_meant_for(endpoint: &Endpoint, nearness: Nearness, place: &Place) -> bool {
    let Endpoint { hints, .. } = endpoint;
    match nearness {
        Nearness::Anywhere => true,
        Nearness::SameNode => hints.nodes.contains(&place.node),
        Nearness::SameZone => {
            let zone = place.zone.as_ref();
            zone.is_some_and(|zone| hints.zones.contains(zone))
        }
    }
}

#[cfg(test)]
#[path = "eligible_tests.rs"]
mod tests;
