//! Client to backend, on ingress: the whole decision, top to bottom. Masqueraded replies come in this way too.
use lb_common::{
    Counter, DropReason, FlowFlags, FlowSide, FrontendEntry, FrontendFlags, PassReason,
    Translation, Verdict,
};

use crate::{
    bytes::{headers::Wire, packet::Packet, parse::Link, parsed::Parsed, rewrite::rewrite},
    context::{
        Context,
        environment::{Environment, FlowHandle as _, FlowTable},
        scratch::{Entries, FamilyMemory},
    },
    flow::{
        backend::{backend_is_gone, backend_is_member, backend_serves},
        challenge,
        find::Found,
        make::repair,
        prove::{promote, udp_client_may_prove},
        teardown::{self, forget_masquerade, is_closed, touch},
    },
    path::{
        direct,
        icmp_quote::Icmp,
        look_up::look_up,
        origin::{is_foreign, lead},
        steps::Steps,
        unserved::unserved,
    },
    service::{
        frontends::{NO_SERVICE, frontend_of},
        masquerade,
    },
};

/// A packet that enters the node: requests get their backend, masqueraded replies their client.
#[inline(always)]
pub fn ingress<F, P, E>(cx: &mut Context<'_, F, P, E>, link: Link) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let (found, frontend) = look_up(cx.env, &cx.scratch.parsed().tuple);
    if found.is_none()
        && frontend.service_id == NO_SERVICE
        && !frontend.flags.has(FrontendFlags::DIRECT)
    {
        return unserved(cx, link);
    }
    if is_foreign(cx.packet, cx.env, link) && !is_of_neighbours(cx, found.as_ref(), frontend) {
        return Verdict::Pass(PassReason::NotOurs);
    }
    match known(cx, found) {
        Known::Yes => {}
        Known::No => {
            if let Err(verdict) = opening(cx, frontend, link) {
                return verdict;
            }
        }
        Known::Gone => return Verdict::Drop(DropReason::BackendGone),
        Known::Below => return Verdict::Pass(PassReason::Direct),
    }
    let (parsed, entries) = cx.scratch.parts();
    if direct::keeps_port(&entries.own) {
        return Verdict::Pass(PassReason::Direct);
    }
    // Without a Service only ports change, which later fragments do not have.
    if parsed.is_fragment()
        && entries.own.has_service()
        && let Err(reason) = P::note_fragment(cx)
    {
        return Verdict::Drop(reason);
    }
    let (parsed, entries) = cx.scratch.parts();
    let (address, port) = (entries.own.address, entries.own.port);
    let (side, other_port) = (FlowSide::Destination, entries.own.other_port);
    if let Err(reason) = rewrite(cx.packet, parsed, side, address, port, other_port) {
        return Verdict::Drop(reason);
    }
    let flags = entries.own.flags;
    if flags.has(FlowFlags::BRIDGED) {
        let source = parsed.tuple.source;
        if let Err(reason) = lead(cx.packet, link, cx.env, flags, source, address) {
            return Verdict::Drop(reason);
        }
    }
    Verdict::Translated(if flags.has(FlowFlags::REQUEST) {
        Translation::Request
    } else {
        Translation::MasqueradedReply
    })
}

/// Whether a frame that is not for this node can belong to a direct connection between two pods of a bridge.
#[inline(always)]
fn is_of_neighbours<F, P, E>(
    cx: &Context<'_, F, P, E>,
    found: Option<&Found<E::Flow>>,
    frontend: FrontendEntry,
) -> bool
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let device = Environment::<F>::device(cx.env, cx.packet.interface());
    device.is_some_and(|device| device.bridge != 0)
        && found.map_or(frontend.service_id == NO_SERVICE, |found| {
            found.handle.entry().is_direct()
        })
}

/// What is known of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing, or it is over.
    No,
    /// It goes on.
    Yes,
    /// Its backend's pod is gone for good.
    Gone,
    /// It is tracked at a device below.
    Below,
}

/// Whether the packet's flow is known and goes on: it keeps its backend, unless it is over or the backend may not have
/// it any more. Afterwards `entries.own` is the flow's entry.
///
/// Whether a TCP flow's pod is gone is asked at most once a second, with the packet that writes the flow's time.
#[inline(always)]
fn known<F, P, E>(cx: &mut Context<'_, F, P, E>, found: Option<Found<E::Flow>>) -> Known
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let Some(found) = found else {
        return Known::No;
    };
    let (parsed, entries) = cx.scratch.parts();
    let env = &mut *cx.env;
    entries.own = found.handle.entry();
    if entries.own.side != FlowSide::Destination.byte() {
        return Known::No;
    }
    if direct::is_tracked_below(cx.packet, env, &entries.own) {
        return Known::Below;
    }
    if parsed.is_part_of_sctp() {
        return Known::Yes; // It will be dropped, and leaves no trace.
    }
    // A direct flow has no frontend that could be another's.
    let has_left = parsed.is_udp()
        && entries.own.has_service()
        && entries.own.epoch != env.frontend_epoch()
        && entries.own.flags.has(FlowFlags::REQUEST)
        && P::follow(cx).is_err();
    let (parsed, entries) = cx.scratch.parts();
    let env = &mut *cx.env;
    if entries.own.flags.has(FlowFlags::REQUEST)
        && chooses_anew(parsed, entries, env, found.table, has_left)
    {
        let _done = P::forget(cx);
        return Known::No;
    }
    let now = env.now();
    if now.is_after(entries.own.last_seen, 1)
        && entries.own.flags.has(FlowFlags::REQUEST)
        && !parsed.is_udp()
        && backend_is_gone(env, &entries.own)
    {
        // It is over, whoever closes it.
        let flags = entries.own.flags.with(FlowFlags::RST);
        found.handle.set_flags(flags);
        return Known::Gone;
    }
    touch(env, &found.handle, &entries.own, parsed.tcp_flags, now);
    if found.table == FlowTable::Opening {
        // It has nothing to refuse.
        let _done = P::advance_request(cx);
    }
    Known::Yes
}

/// Forgets the flow of the packet, whose entry is `entries.own`, with its masquerade.
#[inline(always)]
pub fn forget<F: Wire, E: Environment<F>>(
    scratch: &mut FamilyMemory<'_, F>,
    env: &mut E,
) -> Result<(), DropReason> {
    let (parsed, entries) = scratch.parts();
    let key = &parsed.tuple;
    if entries.own.flags.has(FlowFlags::MASQUERADE) {
        forget_masquerade(env, &entries.own.translated(key));
    }
    teardown::forget(env, key, &entries.other_key);
    Ok(())
}

/// Whether a request of a known flow must get another backend: a UDP flow whose backend or frontend has left the service, at
/// once (`has_left` says it of the frontend); a TCP flow only with a SYN, when the old conversation is over or its pod is gone for good, or when it never came about, or
/// its client may have reset it, and its backend has left the service meanwhile. If so, `entries.other_key` is the key of the other half.
#[inline(always)]
fn chooses_anew<F: Wire, E: Environment<F>>(
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    env: &mut E,
    table: FlowTable,
    has_left: bool,
) -> bool {
    if parsed.is_udp() {
        if !has_left && backend_serves(env, &entries.own) {
            return false;
        }
        entries.other_key = entries.own.other_half(&parsed.tuple);
        env.count(Counter::FlowsRebalanced);
        return true;
    }
    if !parsed.tcp_flags.opens() {
        return false;
    }
    entries.other_key = entries.own.other_half(&parsed.tuple);
    let may_be_over = table == FlowTable::Opening || entries.own.flags.has(FlowFlags::RST);
    is_closed(env, entries.own.flags, &entries.other_key)
        || backend_is_gone(env, &entries.own)
        || may_be_over && !backend_is_member(env, &entries.own)
}

/// A packet of a flow that has not proven itself, whose entry before this packet is `entries.own`: perhaps it does so
/// now. One that has, but found no room, is tried again once a second.
#[inline(always)]
pub fn advance<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let (key, env) = (&parsed.tuple, &mut *cx.env);
    let now = env.now();
    let is_due = now.is_after(entries.own.last_seen, 1);
    let Some(handle) = env.flow(FlowTable::Opening, key) else {
        return Ok(()); // Another CPU has moved it meanwhile.
    };
    entries.own = handle.entry();
    let flags = entries.own.flags;
    if flags.has(FlowFlags::REQUEST.with(FlowFlags::MASQUERADE)) {
        // The wish may have been evicted; where it was not, this changes nothing.
        let _refused = masquerade::request(env, key, entries, now);
    }
    repair(env, key, entries, now);
    let is_proven = if !flags.has(FlowFlags::REQUEST) {
        // An answer to the node's own connection, that had to take another port, proves it.
        !entries.own.has_service()
    } else if flags.has(FlowFlags::CROWDED) {
        is_due
    } else if parsed.is_udp() {
        flags.has(FlowFlags::REPLIED) && udp_client_may_prove(env, key, now)
    } else {
        flags.has(FlowFlags::CHALLENGED)
            && challenge::is_given(cx.packet, parsed, entries.own.expected_ack)
    };
    if is_proven {
        promote(env, key, &handle, entries, now);
    }
    Ok(())
}

/// No flow is known: is it for a frontend, and may it open a flow? Afterwards `entries.own` is the new flow's entry.
#[inline(always)]
fn opening<F, P, E>(
    cx: &mut Context<'_, F, P, E>,
    frontend: FrontendEntry,
    link: Link,
) -> Result<(), Verdict>
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let key = &parsed.tuple;
    // Where a proven flow chooses anew, nobody has looked yet.
    let frontend = if frontend.service_id == NO_SERVICE {
        frontend_of(cx.env, key)
    } else {
        frontend
    };
    if frontend.service_id == NO_SERVICE {
        if direct::opens(cx.packet, parsed, cx.env, frontend.flags) {
            return direct::open(cx).map_err(|_untracked| Verdict::Pass(PassReason::NotOurs));
        }
        return Err(unserved(cx, link));
    }
    if parsed.is_part_of_sctp() {
        return Err(Verdict::Drop(DropReason::Fragmented));
    }
    if !parsed.is_udp() && !parsed.tcp_flags.opens() {
        return Err(Verdict::Drop(DropReason::NoFlow));
    }
    entries.frontend = frontend;
    P::choose(cx)
        .and_then(|()| P::reserve(cx))
        .and_then(|()| P::remember(cx))
        .map_err(Verdict::Drop)
}
