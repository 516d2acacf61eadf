//! The members of a service port, each once, in slot order.
use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use crate::{
    desired::{
        DesiredBackend, Presence,
        eligible::{self, Fitness, is_local},
    },
    model::{Endpoint, EndpointSlice, Family, Place, ServicePort, TrafficPolicy},
};

/// Who takes new flows (by address and port: a stable order), and everybody the slices name.
pub(super) fn members(
    port: &ServicePort,
    family: Family,
    slices: &[&EndpointSlice],
    policy: TrafficPolicy,
    place: &Place,
) -> (Vec<DesiredBackend>, BTreeMap<IpAddr, Presence>) {
    let mut candidates: BTreeMap<SocketAddr, (Fitness, &Endpoint)> = BTreeMap::new();
    let mut present = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        for endpoint in &slice.endpoints {
            present
                .entry(endpoint.address)
                .and_modify(|known| note(known, endpoint))
                .or_insert_with(|| presence(endpoint));
        }
        let mut ports = slice.ports.iter();
        let matching = ports.find(|it| it.name == port.name && it.protocol == port.protocol);
        let Some(target) = matching else { continue };
        for endpoint in &slice.endpoints {
            let fitness = eligible::fitness(endpoint);
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
    let members = candidates
        .into_iter()
        .zip(eligible)
        .filter(|(_, takes_flows)| *takes_flows)
        .map(|((address, (_, endpoint)), _)| DesiredBackend {
            address,
            target: endpoint.target.clone(),
            node: endpoint.node.clone(),
        })
        .collect();
    (members, present)
}

fn presence(endpoint: &Endpoint) -> Presence {
    Presence {
        uid: endpoint.target.as_ref().map(|target| target.uid.clone()),
        terminating: endpoint.terminating,
    }
}

fn note(known: &mut Presence, endpoint: &Endpoint) {
    let other = presence(endpoint);
    if known.uid < other.uid {
        *known = other;
    } else if known.uid == other.uid {
        known.terminating |= other.terminating;
    }
}
