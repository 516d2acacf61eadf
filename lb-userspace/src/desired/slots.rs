//! The members of a service port, each once, in slot order.
use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use crate::{
    desired::{
        DesiredBackend, Presence,
        eligible::{self, Fitness},
    },
    model::{Endpoint, EndpointSlice, Family, Service, ServicePort},
};

/// Who takes new flows (by address and port: a stable order), and everybody the slices name.
pub(super) fn members(
    service: &Service,
    port: &ServicePort,
    family: Family,
    slices: &[&EndpointSlice],
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
            let fitness = eligible::fitness(service, endpoint);
            // An endpoint that moves from one slice to another stands in both for a moment: its better half counts.
            match candidates.entry(SocketAddr::new(endpoint.address, target.port)) {
                Entry::Vacant(place) => {
                    place.insert((fitness, endpoint));
                }
                Entry::Occupied(mut place) => {
                    let known = place.get();
                    if (known.0, &known.1.target) < (fitness, &endpoint.target) {
                        place.insert((fitness, endpoint));
                    }
                }
            }
        }
    }
    let best = candidates.values().map(|(fitness, _)| *fitness).max();
    let required = eligible::required(best.unwrap_or(Fitness::Unfit));
    let members = candidates
        .into_iter()
        .filter(|(_, (fitness, _))| *fitness >= required)
        .map(|(address, (_, endpoint))| DesiredBackend {
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
