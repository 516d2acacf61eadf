//! Clients that stay with a backend.
use std::net::IpAddr;

use lb_common::BackendState;

use super::{Stay, World};

impl World {
    /// The backend that a client has and may keep.
    pub(super) fn kept(&self, service_id: u32, client: IpAddr) -> Option<u32> {
        let service = &self.services[&service_id];
        let stay = service.clients.get(&client)?;
        let backend = self.backends.get(&stay.backend)?;
        let is_member = backend.state == BackendState::Active
            && backend.generation == stay.generation
            && service.candidates.contains(&stay.backend);
        let is_over = self.passed(stay.since, service.affinity_seconds);
        (is_member && !is_over).then_some(stay.backend)
    }

    /// A client has a backend, from now on.
    pub(super) fn stay(&mut self, service_id: u32, client: IpAddr, backend: u32) {
        let stay = Stay {
            backend,
            generation: self.backends[&backend].generation,
            since: self.now,
        };
        if let Some(service) = self.services.get_mut(&service_id)
            && service.affinity_seconds != 0
        {
            service.clients.insert(client, stay);
        }
    }
}
