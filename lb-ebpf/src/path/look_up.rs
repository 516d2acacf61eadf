//! What a packet is: of a known flow, for a frontend, or others' affair.
use lb_common::{FrontendEntry, FrontendFlags, Tuple};

use crate::{
    bytes::headers::Wire,
    context::environment::Environment,
    flow::find::{Found, find_opening, find_proven},
    service::frontends::{NO_SERVICE, NOBODYS, frontend_of},
};

/// The packet's flow, and where that must be known to find it, the frontend it is for. A packet that belongs to no proven
/// flow and is for no frontend is somebody else's, but for the few that [`lb_common::FlowMarks::unlisted`] speaks of:
/// most of a node's packets end here, after two lookups. A backend's own address counts as a frontend here.
#[inline(always)]
pub fn look_up<F: Wire, E: Environment<F>>(
    env: &E,
    key: &Tuple<F>,
) -> (Option<Found<E::Flow>>, FrontendEntry) {
    let last_move = env.last_move();
    if let Some(found) = find_proven(env, key) {
        return (Some(found), NOBODYS);
    }
    let frontend = frontend_of(env, key);
    if frontend.service_id == NO_SERVICE
        && !frontend.flags.has(FrontendFlags::DIRECT)
        && !env.may_have_unlisted_flows(&key.destination)
    {
        return (None, NOBODYS);
    }
    (find_opening(env, key, last_move), frontend)
}
