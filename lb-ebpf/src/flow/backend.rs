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

/// Whether the backend a flow was given is still a member of the service it was given for.
#[inline(always)]
pub fn backend_is_member<F: Wire, E: Environment<F>>(env: &E, entry: &FlowEntry<F>) -> bool {
    env.backend(entry.backend_id).is_some_and(|backend| {
        backend.state() == BackendState::Active
            && backend.generation == entry.generation
            && backend.service_id == entry.service_id
    })
}

/// Whether the pod behind a flow's backend is gone for good: it will neither answer nor close.
#[inline(always)]
pub fn backend_is_gone<F: Wire, E: Environment<F>>(env: &E, entry: &FlowEntry<F>) -> bool {
    env.backend(entry.backend_id).is_none_or(|backend| {
        backend.generation != entry.generation
            || matches!(backend.state(), BackendState::Gone | BackendState::Free)
    })
}
