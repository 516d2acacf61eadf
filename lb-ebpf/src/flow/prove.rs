//! Moving flows whose client has proven itself to the table without eviction.
use lb_common::{Counter, FlowEntry, FlowFlags, Tuple, config::UDP_WINDOW_SECONDS};

use crate::{
    bytes::{headers::Wire, parsed::is_udp},
    context::{
        clock::Instant,
        environment::{Environment, FlowHandle as _, FlowTable},
        scratch::Entries,
    },
    flow::{
        ageing::flow_of_masquerade,
        find::find,
        make::{is_same_way, make_other},
    },
};

/// Flags that mean something in `OPENING_FLOWS` alone.
const OPENING_FLAGS: u8 = FlowFlags::CHALLENGED.0 | FlowFlags::CROWDED.0;

/// Moves a flow that has proven itself to the table without eviction: the other half first, and both or none.
/// `entries.own` and `entries.other_key` are the flow's, `handle` is its living entry.
#[inline(always)]
pub fn promote<F: Wire, E: Environment<F>>(
    env: &mut E,
    key: &Tuple<F>,
    handle: &E::Flow,
    entries: &mut Entries<F>,
    now: Instant,
) {
    let before = entries.own.flags;
    make_other(key, entries, now);
    if let Some(found) = find(env, &entries.other_key) {
        let present = found.handle.entry();
        if !is_same_way(&present, &entries.other) {
            // Evicted, and claimed by a flow of another frontend meanwhile: it is not taken back from a living flow.
            return;
        }
        entries.other.flags = present.flags;
        entries.other.epoch = present.epoch;
    }
    let of_udp = 2 * udp_entries_of(key, &entries.own);
    if of_udp != 0 && !env.take_udp_entries(of_udp) {
        return;
    }
    entries.own.flags = FlowFlags(before.0 & !OPENING_FLAGS);
    let stored = env.replace_flow(FlowTable::Proven, &entries.other_key, &entries.other);
    if stored.is_err()
        || env
            .replace_flow(FlowTable::Proven, key, &entries.own)
            .is_err()
    {
        env.remove_flow(FlowTable::Proven, &entries.other_key);
        if of_udp != 0 {
            env.give_back_udp_entries(of_udp);
        }
        if !before.has(FlowFlags::CROWDED) {
            handle.set_flags(before.with(FlowFlags::CROWDED));
            env.mark_unlisted_flow(&key.destination);
            env.count(Counter::FlowsTableFull);
        }
        return;
    }
    env.mark_move();
    env.remove_flow(FlowTable::Opening, key);
    env.remove_flow(FlowTable::Opening, &entries.other_key);
    env.count(Counter::FlowsProven);
}

/// For how many entries of FLOWS one of a UDP flow's two counts: if it has a masquerade, for one of that as well, whose
/// entries count for none. (Together they are as many as there are.)
#[inline(always)]
pub fn udp_entries_of<F: Wire>(key: &Tuple<F>, entry: &FlowEntry<F>) -> u32 {
    if !is_udp(key) || flow_of_masquerade(key, entry).is_some() {
        0
    } else if entry.flags.has(FlowFlags::MASQUERADE) {
        2
    } else {
        1
    }
}

/// Whether a UDP client may move one more flow to FLOWS within the window; counts it if so.
#[inline(always)]
pub fn udp_client_may_prove<F: Wire, E: Environment<F>>(
    env: &mut E,
    key: &Tuple<F>,
    now: Instant,
) -> bool {
    let client = F::client_network(key.source);
    let seen = env.udp_client(&client);
    let [count, window]: [u32; 2] = bytemuck::must_cast(seen);
    let is_over = seen == 0 || now.is_after(window, UDP_WINDOW_SECONDS);
    let (count, window) = if is_over {
        (0, now.jiffies)
    } else {
        (count, window)
    };
    if count >= env.udp_flows_per_client() {
        return false;
    }
    env.set_udp_client(&client, bytemuck::must_cast([count + 1, window]));
    true
}
