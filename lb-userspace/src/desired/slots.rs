//! The members of a service port, each once, in slot order.
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use crate::{
    desired::{
        DesiredBackend, Presence,
        eligible::{self, Fitness, is_local},
    },
    model::{Endpoint, EndpointSlice, Family, Place, ServicePort, TrafficPolicy},
};

/// What the slices say of a service port.
pub(super) struct Members {
    /// Who takes new flows, by address and port: a stable order.
    pub(super) backends: Vec<DesiredBackend>,
    /// The pods at each address that the slices name.
    pub(super) present: BTreeMap<IpAddr, Vec<Presence>>,
    /// The serving endpoints.
    pub(super) serving: BTreeSet<SocketAddr>,
}

/// Who takes new flows of clients with this policy, and everybody the slices name.
pub(super) fn members(
    port: &ServicePort,
    family: Family,
    slices: &[&EndpointSlice],
    policy: TrafficPolicy,
    place: &Place,
) -> Members {
    let mut candidates: BTreeMap<SocketAddr, (Fitness, &Endpoint)> = BTreeMap::new();
    let (mut present, mut serving) = (BTreeMap::new(), BTreeSet::new());
    for slice in slices.iter().filter(|slice| slice.family == family) {
        for endpoint in &slice.endpoints {
            note(present.entry(endpoint.address).or_default(), endpoint);
        }
        let mut ports = slice.ports.iter();
        let matching = ports.find(|it| it.name == port.name && it.protocol == port.protocol);
        let Some(target) = matching else { continue };
        for endpoint in &slice.endpoints {
            let fitness = eligible::fitness(endpoint);
            if endpoint.ready || endpoint.serving {
                serving.insert(SocketAddr::new(endpoint.address, target.port));
            }
            // An endpoint that moves from one slice to another stands in both for a moment: its better half counts.
            let rank = |fitness: Fitness, it: &'_ Endpoint| (fitness, is_local(it, place));
            match candidates.entry(SocketAddr::new(endpoint.address, target.port)) {
                Entry::Vacant(place) => {
                    place.insert((fitness, endpoint));
                }
                Entry::Occupied(mut place) => {
                    let known = place.get();
                    let (known_rank, new_rank) = (rank(known.0, known.1), rank(fitness, endpoint));
                    if (known_rank, &known.1.target) < (new_rank, &endpoint.target) {
                        place.insert((fitness, endpoint));
                    }
                }
            }
        }
    }
    let endpoints: Vec<_> = candidates.values().copied().collect();
    let eligible = eligible::eligible(policy, &endpoints, place);
    let backends = candidates
        .into_iter()
        .zip(eligible)
        .filter(|(_, takes_flows)| *takes_flows)
        .map(|((address, (_, endpoint)), _)| DesiredBackend {
            address,
            target: endpoint.target.clone(),
            node: endpoint.node.clone(),
        })
        .collect();
    Members {
        backends,
        present,
        serving,
    }
}

/// Notes the endpoint's pod among those at its address: pods in the host's network share their node's.
fn note(pods: &mut Vec<Presence>, endpoint: &Endpoint) {
    let uid = endpoint.target.as_ref().map(|target| &target.uid);
    match pods.iter_mut().find(|it| it.uid.as_ref() == uid) {
        Some(known) => known.terminating |= endpoint.terminating,
        None => pods.push(Presence {
            uid: uid.cloned(),
            terminating: endpoint.terminating,
        }),
    }
}
