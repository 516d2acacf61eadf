//! Moving flows whose client has proven itself to the table without eviction.
use lb_common::{Counter, FlowFlags, Tuple, config::UDP_WINDOW_SECONDS};

use crate::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        scratch::Entries,
        tables::{FlowHandle as _, FlowTable, Tables},
    },
    flow::{
        find::find,
        make::{is_same_way, make_other},
    },
};

/// Flags that mean something in `OPENING_FLOWS` alone.
const OPENING_FLAGS: u8 = FlowFlags::CHALLENGED.0 | FlowFlags::CROWDED.0;

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
