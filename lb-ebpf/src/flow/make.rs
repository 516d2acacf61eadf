//! The two entries of a flow: making them, storing them, and putting back what was evicted.
//!
//! The functions work on [`Entries`]: `own` is the entry of the packet's tuple, `other` the entry of the other half.
use lb_common::{Counter, DropReason, FlowEntry, FlowFlags, FlowSide, Port, Tuple};

use crate::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        environment::{Environment, FlowHandle as _, FlowTable, StoreError},
        scratch::Entries,
    },
    flow::{backend::Selected, find::find},
};

/// Flags that both halves of a flow carry, so that each can restore the other.
const SHARED_FLAGS: u8 = FlowFlags::MASQUERADE.0 | FlowFlags::BRIDGED.0;

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
    own.epoch = 0;
    own.padding = F::Padding::default();
}

/// Makes the entry of the other half, as it must be.
#[inline(always)]
pub(super) fn make_other<F: Wire>(key: &Tuple<F>, entries: &mut Entries<F>, now: Instant) {
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
    other.epoch = 0;
    other.padding = F::Padding::default();
}

/// Whether two entries rewrite packets in the same way.
#[inline(always)]
pub(super) fn is_same_way<F: Wire>(one: &FlowEntry<F>, other: &FlowEntry<F>) -> bool {
    one.side == other.side
        && one.address == other.address
        && one.port == other.port
        && one.other_port == other.other_port
}

/// Stores the request half of a new flow whose reply half stands at `entries.other_key`. Afterwards `entries.own` is the
/// flow's request entry: the loser of a race between two CPUs takes the winner's.
#[inline(always)]
pub fn remember<F: Wire, E: Environment<F>>(
    env: &mut E,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
) -> Result<(), DropReason> {
    match env.insert_flow(FlowTable::Opening, key, &entries.own) {
        Ok(()) => {
            env.count(Counter::FlowsOpened);
            Ok(())
        }
        Err(StoreError::Exists) => {
            // Another CPU was faster with a packet of the same flow: its choice holds for both.
            let Some(winner) = env.flow(FlowTable::Opening, key) else {
                return Err(DropReason::FlowNotStored);
            };
            entries.own = winner.entry();
            if entries.own.other_half(key) != entries.other_key {
                env.remove_flow(FlowTable::Opening, &entries.other_key);
            }
            Ok(())
        }
        Err(StoreError::Refused) => {
            env.remove_flow(FlowTable::Opening, &entries.other_key);
            Err(DropReason::FlowNotStored)
        }
    }
}

/// Puts the other half back where the LRU has evicted it. Afterwards `entries.other_key` is its key.
#[inline(always)]
pub fn repair<F: Wire, E: Environment<F>>(
    env: &mut E,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
    now: Instant,
) {
    entries.other_key = entries.own.other_half(key);
    if find(env, &entries.other_key).is_some() {
        return;
    }
    make_other(key, entries, now);
    if env
        .insert_flow(FlowTable::Opening, &entries.other_key, &entries.other)
        .is_ok()
    {
        env.count(Counter::FlowsRepaired);
    }
}
