//! Remembering flows: find, make, prove, repair.
//!
//! The functions work on [`Entries`]: `own` is the entry of the packet's tuple, `other` the entry of the other half.
use lb_common::{
    BackendState, Counter, DropReason, FlowEntry, FlowFlags, FlowSide, Port, Tuple,
    config::UDP_WINDOW_SECONDS, hash::tuple_hash,
};

use crate::{
    clock::Instant,
    goodbye::is_closed,
    headers::Wire,
    masquerade::{self, PORT_TRIES, port_from_range},
    scratch::Entries,
    select::Selected,
    tables::{FlowHandle, FlowTable, StoreError, Tables},
};

/// Flags that both halves of a flow carry, so that each can restore the other.
const SHARED_FLAGS: u8 = FlowFlags::MASQUERADE.0 | FlowFlags::BRIDGED.0;

/// Flags that mean something in `OPENING_FLOWS` alone.
const OPENING_FLAGS: u8 = FlowFlags::CHALLENGED.0 | FlowFlags::CROWDED.0;

/// After how many seconds of silence a flow that never proved itself gives its reply tuple up to another frontend's.
pub const OPENING_SECONDS: u32 = 60;

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
pub fn find<F: Wire, T: Tables<F>>(tables: &T, key: &Tuple<F>) -> Option<Found<T::Flow>> {
    let last_move = tables.last_move();
    find_proven(tables, key).or_else(|| find_opening(tables, key, last_move))
}

/// Looks a tuple up among the proven flows.
#[inline(always)]
pub fn find_proven<F: Wire, T: Tables<F>>(tables: &T, key: &Tuple<F>) -> Option<Found<T::Flow>> {
    let handle = tables.flow(FlowTable::Proven, key)?;
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
pub fn find_opening<F: Wire, T: Tables<F>>(
    tables: &T,
    key: &Tuple<F>,
    last_move: u32,
) -> Option<Found<T::Flow>> {
    if let Some(handle) = tables.flow(FlowTable::Opening, key) {
        return Some(Found {
            handle,
            table: FlowTable::Opening,
        });
    }
    if tables.last_move() == last_move {
        return None;
    }
    find_proven(tables, key)
}

/// Whether the backend a flow was given is still a member of the service it was given for.
#[inline(always)]
pub fn backend_is_member<F: Wire, T: Tables<F>>(tables: &T, entry: &FlowEntry<F>) -> bool {
    tables.backend(entry.backend_id).is_some_and(|backend| {
        backend.state() == BackendState::Active
            && backend.generation == entry.generation
            && backend.service_id == entry.service_id
    })
}

/// Whether the pod behind a flow's backend is gone for good: it will neither answer nor say goodbye.
#[inline(always)]
pub fn backend_is_gone<F: Wire, T: Tables<F>>(tables: &T, entry: &FlowEntry<F>) -> bool {
    tables.backend(entry.backend_id).is_none_or(|backend| {
        backend.generation != entry.generation
            || matches!(backend.state(), BackendState::Gone | BackendState::Free)
    })
}

/// Makes the entry of the other half, as it must be.
#[inline(always)]
fn make_other<F: Wire>(key: &Tuple<F>, entries: &mut Entries<F>, now: Instant) {
    let own = &entries.own;
    let other = &mut entries.other;
    let (side, own_port) = if own.side == FlowSide::Destination.byte() {
        other.address = key.destination;
        other.port = key.destination_port;
        (FlowSide::Source, key.source_port)
    } else {
        other.address = key.source;
        other.port = key.source_port;
        (FlowSide::Destination, key.destination_port)
    };
    other.other_port = if own.other_port == Port::ZERO {
        Port::ZERO
    } else {
        own_port
    };
    let direction = (own.flags.0 ^ FlowFlags::REQUEST.0) & FlowFlags::REQUEST.0;
    other.side = side.byte();
    other.flags = FlowFlags(direction | own.flags.0 & SHARED_FLAGS);
    other.backend_id = own.backend_id;
    other.generation = own.generation;
    other.service_id = own.service_id;
    other.expected_ack = 0;
    other.last_seen = now.jiffies;
    other.spare = 0;
    other.padding = F::Padding::default();
}

/// The request entry of a new flow to the selected backend.
#[inline(always)]
pub fn make_request<F: Wire>(
    selected: &Selected<F>,
    flags: FlowFlags,
    own: &mut FlowEntry<F>,
    now: Instant,
) {
    own.address = selected.backend.address;
    own.port = selected.backend.port;
    own.other_port = Port::ZERO;
    own.side = FlowSide::Destination.byte();
    own.flags = flags.with(FlowFlags::REQUEST);
    own.backend_id = selected.id;
    own.generation = selected.backend.generation;
    own.service_id = selected.backend.service_id;
    own.expected_ack = 0;
    own.last_seen = now.jiffies;
    own.spare = 0;
    own.padding = F::Padding::default();
}

/// Finds a reply tuple for the new flow `entries.own` and stores its reply half there, before the request's, so that no
/// answer can come back unrecognised: the tuple with the client's own port, unless a living flow of another frontend has
/// it; then one with another source port from the range of masquerade ports. Which ports are tried follows from the
/// flow's tuple: who opens it again after its request half was evicted finds its own.
#[inline(always)]
pub fn reserve<F: Wire, T: Tables<F>>(
    tables: &mut T,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
    now: Instant,
) -> Result<(), DropReason> {
    entries.other_key = entries.own.other_half(key);
    make_other(key, entries, now);
    let claimed = claim_reply_tuple(tables, entries, now);
    if claimed != Err(DropReason::FlowConflict) {
        return claimed;
    }
    let hash = tuple_hash(key);
    entries.other.other_port = key.source_port;
    for attempt in 0..PORT_TRIES {
        entries.own.other_port = port_from_range(hash.wrapping_add(attempt));
        entries.other_key.destination_port = entries.own.other_port;
        match tables.insert_flow(FlowTable::Opening, &entries.other_key, &entries.other) {
            // Looked for afterwards: flows move from the one table to the other only.
            Ok(()) if tables.flow(FlowTable::Proven, &entries.other_key).is_some() => {
                tables.remove_flow(FlowTable::Opening, &entries.other_key);
            }
            Ok(()) => return Ok(()),
            Err(StoreError::Refused) => return Err(DropReason::FlowNotStored),
            Err(StoreError::Exists) => {
                let owner = tables.flow(FlowTable::Opening, &entries.other_key);
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
fn claim_reply_tuple<F: Wire, T: Tables<F>>(
    tables: &mut T,
    entries: &Entries<F>,
    now: Instant,
) -> Result<(), DropReason> {
    let (reply_key, reply) = (&entries.other_key, &entries.other);
    if let Some(found) = find(tables, reply_key) {
        let owner = found.handle.entry();
        let is_forgotten =
            found.table == FlowTable::Opening && now.is_after(owner.last_seen, OPENING_SECONDS);
        let other_key = owner.other_half(reply_key);
        if !is_same_way(&owner, reply)
            && !is_forgotten
            && !is_closed(tables, owner.flags, &other_key)
        {
            return Err(DropReason::FlowConflict);
        }
        // Our own left over (its request half was evicted), or a finished one: all of it goes, lest what is left of it
        // ages away under the new flow.
        if owner.flags.has(FlowFlags::MASQUERADE) {
            masquerade::forget(tables, &reply_key.reversed());
        }
        forget(tables, reply_key, &other_key);
    }
    match tables.insert_flow(FlowTable::Opening, reply_key, reply) {
        Ok(()) => Ok(()),
        Err(StoreError::Exists) => Err(DropReason::FlowConflict),
        Err(StoreError::Refused) => Err(DropReason::FlowNotStored),
    }
}

/// Stores the request half of a new flow whose reply half stands at `entries.other_key`. Afterwards `entries.own` is the
/// flow's request entry: the loser of a race between two CPUs takes the winner's.
#[inline(always)]
pub fn remember<F: Wire, T: Tables<F>>(
    tables: &mut T,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
) -> Result<(), DropReason> {
    match tables.insert_flow(FlowTable::Opening, key, &entries.own) {
        Ok(()) => {
            tables.count(Counter::FlowsOpened);
            Ok(())
        }
        Err(StoreError::Exists) => {
            // Another CPU was faster with a packet of the same flow: its choice holds for both.
            let Some(winner) = tables.flow(FlowTable::Opening, key) else {
                return Err(DropReason::FlowNotStored);
            };
            entries.own = winner.entry();
            if entries.own.other_half(key) != entries.other_key {
                tables.remove_flow(FlowTable::Opening, &entries.other_key);
            }
            Ok(())
        }
        Err(StoreError::Refused) => {
            tables.remove_flow(FlowTable::Opening, &entries.other_key);
            Err(DropReason::FlowNotStored)
        }
    }
}

/// Whether two entries rewrite packets in the same way.
#[inline(always)]
fn is_same_way<F: Wire>(one: &FlowEntry<F>, other: &FlowEntry<F>) -> bool {
    one.side == other.side
        && one.address == other.address
        && one.port == other.port
        && one.other_port == other.other_port
}

/// Forgets both halves of a flow, wherever they are.
#[inline(always)]
pub fn forget<F: Wire, T: Tables<F>>(tables: &mut T, key: &Tuple<F>, other_key: &Tuple<F>) {
    tables.remove_flow(FlowTable::Proven, key);
    tables.remove_flow(FlowTable::Proven, other_key);
    tables.remove_flow(FlowTable::Opening, key);
    tables.remove_flow(FlowTable::Opening, other_key);
}

/// Puts the other half back where the LRU has evicted it. Afterwards `entries.other_key` is its key.
#[inline(always)]
pub fn repair<F: Wire, T: Tables<F>>(
    tables: &mut T,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
    now: Instant,
) {
    entries.other_key = entries.own.other_half(key);
    if find(tables, &entries.other_key).is_some() {
        return;
    }
    make_other(key, entries, now);
    if tables
        .insert_flow(FlowTable::Opening, &entries.other_key, &entries.other)
        .is_ok()
    {
        tables.count(Counter::FlowsRepaired);
    }
}

/// Moves a flow that has proven itself to the table without eviction: the other half first, and both or none.
/// `entries.own` and `entries.other_key` are the flow's, `handle` is its living entry.
#[inline(always)]
pub fn promote<F: Wire, T: Tables<F>>(
    tables: &mut T,
    key: &Tuple<F>,
    handle: T::Flow,
    entries: &mut Entries<F>,
    now: Instant,
) {
    let before = entries.own.flags;
    make_other(key, entries, now);
    if let Some(found) = find(tables, &entries.other_key) {
        let present = found.handle.entry();
        if !is_same_way(&present, &entries.other) {
            // Evicted, and claimed by a flow of another frontend meanwhile: it is not taken back from a living flow.
            return;
        }
        entries.other.flags = present.flags;
    }
    entries.own.flags = FlowFlags(before.0 & !OPENING_FLAGS);
    let stored = tables.replace_flow(FlowTable::Proven, &entries.other_key, &entries.other);
    if stored.is_err()
        || tables
            .replace_flow(FlowTable::Proven, key, &entries.own)
            .is_err()
    {
        tables.remove_flow(FlowTable::Proven, &entries.other_key);
        if !before.has(FlowFlags::CROWDED) {
            handle.set_flags(before.with(FlowFlags::CROWDED));
            tables.mark_lodger(&key.destination);
            tables.count(Counter::FlowsTableFull);
        }
        return;
    }
    tables.mark_move();
    tables.remove_flow(FlowTable::Opening, key);
    tables.remove_flow(FlowTable::Opening, &entries.other_key);
    tables.count(Counter::FlowsProven);
}

/// Whether a UDP client may move one more flow to FLOWS within the window; counts it if so.
#[inline(always)]
pub fn udp_client_may_prove<F: Wire, T: Tables<F>>(
    tables: &mut T,
    key: &Tuple<F>,
    now: Instant,
) -> bool {
    let seen = tables.udp_client(&key.source);
    let [count, window]: [u32; 2] = bytemuck::must_cast(seen);
    let is_over = seen == 0 || now.is_after(window, UDP_WINDOW_SECONDS);
    let (count, window) = if is_over {
        (0, now.jiffies)
    } else {
        (count, window)
    };
    if count >= tables.udp_flows_per_client() {
        return false;
    }
    tables.set_udp_client(&key.source, bytemuck::must_cast([count + 1, window]));
    true
}
