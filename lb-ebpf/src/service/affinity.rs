//! Clients that stay with a backend (`sessionAffinity: ClientIP`).
use lb_common::{
    AffinityEntry, AffinityKey, BackendId, BackendState, IpFamily, ServiceEntry, ServiceId,
};

use crate::{
    context::{
        clock::Instant,
        environment::{Decision, Environment},
    },
    flow::backend::Selected,
};

/// A client of a service, at a time.
#[derive(Clone, Copy, Debug)]
pub struct Client<F: IpFamily> {
    /// Its address; the unspecified one for all processes of the node.
    pub address: F::Address,
    /// The service.
    pub service_id: ServiceId,
    /// The time.
    pub now: Instant,
}

/// The backend that a client has.
#[derive(Clone, Copy, Debug)]
pub struct Kept<F: IpFamily> {
    /// The backend.
    pub selected: Selected<F>,
    /// When that was noted last (jiffies).
    pub noted: u32,
}

/// Whether the service's clients stay with a backend.
#[inline(always)]
pub fn applies(service: &ServiceEntry) -> bool {
    service.affinity_seconds != 0 && !service.slots.is_empty()
}

/// The backend that a client of the service had lately, if it still is a member of the service.
#[inline(always)]
pub fn kept<F: IpFamily, E: Environment<F>>(
    env: &E,
    service: &ServiceEntry,
    client: &Client<F>,
) -> Option<Kept<F>> {
    let entry = env.affinity(&AffinityKey::new(client.address, client.service_id))?;
    if client
        .now
        .is_after(entry.last_opened, service.affinity_seconds)
    {
        return None;
    }
    let backend = env.backend(entry.backend_id)?;
    env.tell(&Decision::Backend(entry.backend_id, backend));
    let is_member = backend.state() == BackendState::Active
        && backend.generation == entry.generation
        && backend.service_id == client.service_id;
    is_member.then_some(Kept {
        selected: Selected {
            id: entry.backend_id,
            backend,
        },
        noted: entry.last_opened,
    })
}

/// Remembers which backend a client has from now on.
#[inline(always)]
pub fn note<F: IpFamily, E: Environment<F>>(
    env: &mut E,
    client: &Client<F>,
    backend_id: BackendId,
    generation: u32,
) {
    let entry = AffinityEntry {
        backend_id,
        generation,
        last_opened: client.now.jiffies,
        spare: 0,
    };
    env.set_affinity(&AffinityKey::new(client.address, client.service_id), &entry);
}
