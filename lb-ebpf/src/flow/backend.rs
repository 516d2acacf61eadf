//! The backend of a flow: the one it is given, and what has become of it since.
use lb_common::{BackendEntry, BackendId, BackendState, FlowEntry, IpFamily};

use crate::{bytes::headers::Wire, context::environment::Environment};

/// A chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected<F: IpFamily> {
    /// Its id.
    pub id: BackendId,
    /// What BACKENDS says of it.
    pub backend: BackendEntry<F>,
}

/// Whether the backend of a flow takes new flows of the flow's service. A direct flow has no backend.
#[inline(always)]
pub fn backend_is_member<F: Wire, E: Environment<F>>(env: &E, entry: &FlowEntry<F>) -> bool {
    backend_is(env, entry, |state| state == BackendState::Active)
}

/// Whether the backend of a flow keeps the UDP flows of the flow's service that it has. A direct flow has no backend.
#[inline(always)]
pub fn backend_serves<F: Wire, E: Environment<F>>(env: &E, entry: &FlowEntry<F>) -> bool {
    backend_is(env, entry, BackendState::serves)
}

#[inline(always)]
fn backend_is<F: Wire, E: Environment<F>>(
    env: &E,
    entry: &FlowEntry<F>,
    is_wanted: impl FnOnce(BackendState) -> bool,
) -> bool {
    !entry.has_service()
        || env.backend(entry.backend_id).is_some_and(|backend| {
            is_wanted(backend.state())
                && backend.generation == entry.generation
                && backend.service_id == entry.service_id
        })
}

/// Whether the pod behind a flow's backend is gone for good: it will neither answer nor close. Of a direct flow's pod
/// nothing is known.
#[inline(always)]
pub fn backend_is_gone<F: Wire, E: Environment<F>>(env: &E, entry: &FlowEntry<F>) -> bool {
    entry.has_service()
        && env.backend(entry.backend_id).is_none_or(|backend| {
            backend.generation != entry.generation
                || matches!(backend.state(), BackendState::Gone | BackendState::Free)
        })
}
