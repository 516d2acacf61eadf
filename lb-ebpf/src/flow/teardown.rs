//! What ends a TCP flow: which end has closed or reset it, and which end is believed.
use lb_common::{FlowEntry, FlowFlags, Tuple};

use crate::{
    bytes::headers::{TcpFlags, Wire},
    context::{
        clock::Instant,
        environment::{Environment, FlowHandle as _, FlowTable},
    },
    flow::{backend::backend_is_gone, find::find},
};

/// Notes that a packet of this direction has passed. The time is written at most once a second; FIN and RST at once.
///
/// Who goes on after a reset has not sent it: no end does (RFC 9293, section 3.10.7.4). So a forged one, whose sequence
/// number nobody has checked here, is forgotten with the next segment; unless it was we who wrote it, of a pod that is gone.
#[inline(always)]
pub fn touch<F: Wire, E: Environment<F>>(
    env: &E,
    handle: &E::Flow,
    entry: &FlowEntry<F>,
    tcp_flags: TcpFlags,
    now: Instant,
) {
    if now.is_after(entry.last_seen, 1) {
        handle.set_last_seen(now.jiffies);
    }
    let closing = TcpFlags::FIN.0 | TcpFlags::RST.0;
    if tcp_flags.0 & closing != 0 || entry.flags.has(FlowFlags::RST) {
        let mut flags = entry.flags;
        let goes_on = tcp_flags.0 & (TcpFlags::RST.0 | TcpFlags::SYN.0) == 0;
        if goes_on && flags.has(FlowFlags::RST) && !backend_is_gone(env, entry) {
            flags = flags.without(FlowFlags::RST.with(FlowFlags::FIN));
        }
        if tcp_flags.has(TcpFlags::FIN) {
            flags = flags.with(FlowFlags::FIN);
        }
        if tcp_flags.has(TcpFlags::RST) {
            flags = flags.with(FlowFlags::RST);
        }
        if flags != entry.flags {
            handle.set_flags(flags);
        }
    }
}

/// Whether a TCP flow is over: reset by its pod, or closed by the pod and left by the client. `other_key` is the key of its
/// other half, `own` the flags of this one.
///
/// A client's reset alone ends nothing: anybody may have sent it, with any sequence number. The pod knows better (RFC 5961,
/// section 3), so that it gets the next SYN too.
#[inline(always)]
pub fn is_closed<F: Wire, E: Environment<F>>(
    env: &E,
    own: FlowFlags,
    other_key: &Tuple<F>,
) -> bool {
    let other = find(env, other_key).map_or(FlowFlags::NONE, |other| other.handle.entry().flags);
    let (client, pod) = if own.has(FlowFlags::REQUEST) {
        (own, other)
    } else {
        (other, own)
    };
    let has_left = client.has(FlowFlags::FIN) || client.has(FlowFlags::RST);
    pod.has(FlowFlags::RST) || pod.has(FlowFlags::FIN) && has_left
}

/// Forgets the flow whose entry is at `key`, wherever its halves are. What is at `other_key` may be another flow's by now,
/// if the LRU has evicted the half that was there: that stays.
#[inline(always)]
pub fn forget<F: Wire, E: Environment<F>>(env: &mut E, key: &Tuple<F>, other_key: &Tuple<F>) {
    for table in [FlowTable::Proven, FlowTable::Opening] {
        env.remove_flow(table, key);
        let other = env.flow(table, other_key);
        if other.is_some_and(|other| other.entry().other_half(other_key) == *key) {
            env.remove_flow(table, other_key);
        }
    }
}

/// Forgets the masquerade of a flow that is over: `masquerade_key` is its request's tuple on the way to the backend.
#[inline(always)]
pub fn forget_masquerade<F: Wire, E: Environment<F>>(env: &mut E, masquerade_key: &Tuple<F>) {
    if let Some(found) = find(env, masquerade_key) {
        let reply_key = found.handle.entry().other_half(masquerade_key);
        forget(env, masquerade_key, &reply_key);
    }
}
