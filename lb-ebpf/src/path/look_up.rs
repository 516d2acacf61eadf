//! What a packet is: of a known flow, for a frontend, or others' affair.
use lb_common::{FrontendEntry, Tuple};

use crate::{
    bytes::headers::Wire,
    context::tables::Tables,
    flow::find::{Found, find_opening, find_proven},
    service::frontends::{NO_SERVICE, NOBODYS, frontend_of},
};

/// The packet's flow, and where that must be known to find it, the frontend it is for. A packet that belongs to no proven
/// flow and is for no frontend is somebody else's, but for the few that [`lb_common::FlowMarks::lodgers`] speaks of:
/// most of a node's packets end here, after two lookups.
#[inline(always)]
pub fn look_up<F: Wire, T: Tables<F>>(
    tables: &T,
    key: &Tuple<F>,
) -> (Option<Found<T::Flow>>, FrontendEntry) {
    let last_move = tables.last_move();
    if let Some(found) = find_proven(tables, key) {
        return (Some(found), NOBODYS);
    }
    let frontend = frontend_of(tables, key);
    if frontend.service_id == NO_SERVICE && !tables.has_lodgers(&key.destination) {
        return (None, NOBODYS);
    }
    (find_opening(tables, key, last_move), frontend)
}
