//! Looking a flow up.
use lb_common::Tuple;

use crate::{
    bytes::headers::Wire,
    context::environment::{Environment, FlowTable},
};

/// A flow's entry and where it stands.
#[derive(Clone, Copy)]
pub struct Found<H> {
    /// The living entry.
    pub handle: H,
    /// Its table.
    pub table: FlowTable,
}

/// Looks a tuple up: proven flows first.
#[inline(always)]
pub fn find<F: Wire, E: Environment<F>>(env: &E, key: &Tuple<F>) -> Option<Found<E::Flow>> {
    let last_move = env.last_move();
    find_proven(env, key).or_else(|| find_opening(env, key, last_move))
}

/// Looks a tuple up among the proven flows.
#[inline(always)]
pub fn find_proven<F: Wire, E: Environment<F>>(env: &E, key: &Tuple<F>) -> Option<Found<E::Flow>> {
    let handle = env.flow(FlowTable::Proven, key)?;
    Some(Found {
        handle,
        table: FlowTable::Proven,
    })
}

/// Looks a tuple up among the opening flows, where it was not among the proven ones; `last_move` was read before that.
///
/// A flow that another CPU moves between the two looks would be in neither: not among the proven ones yet, and no longer
/// among the opening ones. The mark of the last move tells, at the price of two loads, where a third lookup would be
/// paid for by every packet that is not ours.
#[inline(always)]
pub fn find_opening<F: Wire, E: Environment<F>>(
    env: &E,
    key: &Tuple<F>,
    last_move: u32,
) -> Option<Found<E::Flow>> {
    if let Some(handle) = env.flow(FlowTable::Opening, key) {
        return Some(Found {
            handle,
            table: FlowTable::Opening,
        });
    }
    env.order_reads();
    if env.last_move() == last_move {
        return None;
    }
    find_proven(env, key)
}
