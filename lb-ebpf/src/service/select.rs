//! Which backend a new flow gets.
use lb_common::{
    Algorithm, BackendState, DropReason, FrontendEntry, FrontendFlags, FrontendKey, IpFamily,
    ServiceId, hash::place,
};

use crate::{
    context::environment::{Decision, Environment},
    flow::backend::Selected,
};

/// How often a service that changes under the reader is read again.
const TRIES: usize = 4;

/// What a frontend is for clients inside the cluster; `frontend` is what it is for everybody.
#[inline(always)]
pub fn for_inside<F: IpFamily, E: Environment<F>>(
    env: &E,
    key: &FrontendKey<F>,
    frontend: FrontendEntry,
) -> FrontendEntry {
    if !frontend.flags.has(FrontendFlags::INSIDE_ELSEWHERE) {
        return frontend;
    }
    match env.frontend(&key.inside()) {
        Some(inside) => {
            env.tell(&Decision::Frontend(key.inside(), inside));
            inside
        }
        None => frontend,
    }
}

/// Picks a candidate of a service: `random` for [`Algorithm::Random`], `hash` for [`Algorithm::Hash`].
///
/// The slot must name the service as its owner, and the backend must be active: otherwise the service has changed
/// since its entry was read, and is read again.
#[inline(always)]
pub fn select<F: IpFamily, E: Environment<F>>(
    env: &E,
    service_id: ServiceId,
    random: u32,
    hash: u32,
) -> Result<Selected<F>, DropReason> {
    for _ in 0..TRIES {
        let service = env.service(service_id).ok_or(DropReason::NoBackend)?;
        env.tell(&Decision::Service(service_id, service));
        if service.slots.is_empty() {
            return Err(DropReason::NoBackend);
        }
        let word = if service.algorithm == Algorithm::Hash as u8 {
            hash
        } else {
            random
        };
        let index = service
            .slots
            .start()
            .wrapping_add(place(word, service.slots.length()));
        let Some(slot) = env.slot(index) else {
            continue;
        };
        if slot.service_id != service_id {
            continue;
        }
        let Some(backend) = env.backend(slot.backend_id) else {
            continue;
        };
        env.tell(&Decision::Backend(slot.backend_id, backend));
        if backend.state() == BackendState::Active && backend.service_id == service_id {
            return Ok(Selected {
                id: slot.backend_id,
                backend,
            });
        }
    }
    Err(DropReason::ServiceInMotion)
}
