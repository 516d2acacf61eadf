//! A tuple for the replies of a new flow: no two flows may have the same one.
use lb_common::{DropReason, FlowFlags, Tuple, hash::tuple_hash};

use crate::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        environment::{Environment, FlowHandle as _, FlowTable, StoreError},
        scratch::Entries,
    },
    flow::{
        find::find,
        make::{is_same_way, make_other},
        ports::{PORT_TRIES, port_from_range},
        teardown::{forget, forget_masquerade, is_closed},
    },
};

/// After how many seconds of silence a flow that never proved itself gives its reply tuple up to another frontend's.
pub const OPENING_SECONDS: u32 = 60;

/// Finds a reply tuple for the new flow `entries.own` and stores its reply half there, before the request's, so that no
/// answer can come back unrecognised: the tuple with the client's own port, unless a living flow of another frontend has
/// it or the client is a process of the node; then one with another source port from the range of masquerade ports. Which ports are tried follows from the
/// flow's tuple: who opens it again after its request half was evicted finds its own.
#[inline(always)]
pub fn reserve<F: Wire, E: Environment<F>>(
    env: &mut E,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
    now: Instant,
) -> Result<(), DropReason> {
    entries.other_key = entries.own.other_half(key);
    make_other(key, entries, now);
    // With its own port, a process's packets for a Service would be those it sends to the backend directly.
    if !entries.own.flags.has(FlowFlags::NODE) {
        let claimed = claim_reply_tuple(env, entries, now);
        if claimed != Err(DropReason::FlowConflict) {
            return claimed;
        }
    }
    let hash = tuple_hash(key);
    entries.other.other_port = key.source_port;
    for attempt in 0..PORT_TRIES {
        entries.own.other_port = port_from_range(hash.wrapping_add(attempt));
        entries.other_key.destination_port = entries.own.other_port;
        match env.insert_flow(FlowTable::Opening, &entries.other_key, &entries.other) {
            // Looked for afterwards: flows move from the one table to the other only.
            Ok(()) if env.flow(FlowTable::Proven, &entries.other_key).is_some() => {
                env.remove_flow(FlowTable::Opening, &entries.other_key);
            }
            Ok(()) => return Ok(()),
            Err(StoreError::Refused) => return Err(DropReason::FlowNotStored),
            Err(StoreError::Exists) => {
                let owner = env.flow(FlowTable::Opening, &entries.other_key);
                if owner.is_some_and(|owner| is_same_way(&owner.entry(), &entries.other)) {
                    return Ok(());
                }
            }
        }
    }
    Err(DropReason::FlowConflict)
}

/// Takes a reply tuple for a new flow, unless a living flow of another frontend has it. Of two CPUs that want it at the
/// same time one gets it.
#[inline(always)]
fn claim_reply_tuple<F: Wire, E: Environment<F>>(
    env: &mut E,
    entries: &Entries<F>,
    now: Instant,
) -> Result<(), DropReason> {
    let (reply_key, reply) = (&entries.other_key, &entries.other);
    if let Some(found) = find(env, reply_key) {
        let owner = found.handle.entry();
        let is_forgotten =
            found.table == FlowTable::Opening && now.is_after(owner.last_seen, OPENING_SECONDS);
        let other_key = owner.other_half(reply_key);
        if !is_same_way(&owner, reply) && !is_forgotten && !is_closed(env, owner.flags, &other_key)
        {
            return Err(DropReason::FlowConflict);
        }
        // Our own left over (its request half was evicted), or a finished one: all of it goes, lest what is left of it
        // ages away under the new flow.
        if owner.flags.has(FlowFlags::MASQUERADE) {
            forget_masquerade(env, &reply_key.reversed());
        }
        forget(env, reply_key, &other_key);
    }
    match env.insert_flow(FlowTable::Opening, reply_key, reply) {
        Ok(()) => Ok(()),
        Err(StoreError::Exists) => Err(DropReason::FlowConflict),
        Err(StoreError::Refused) => Err(DropReason::FlowNotStored),
    }
}
