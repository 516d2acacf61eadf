//! Backend to client, on egress: replies get their frontend's address back. Masqueraded requests go out this way too.
use lb_common::{DropReason, FlowFlags, FlowSide, PassReason, Port, Translation, Verdict};

use crate::{
    bytes::{headers::Wire, packet::Packet, rewrite::rewrite},
    context::{
        Context,
        environment::{Environment, FlowHandle as _, FlowTable},
    },
    flow::{challenge, find::find, make::repair, prove::promote, teardown::touch},
    path::{icmp_quote::Icmp, steps::Steps},
    service::masquerade::{self, MasqueradeAddress},
};

/// A packet that leaves the node or goes to one of its pods.
#[inline(always)]
pub fn egress<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let Some(found) = find(cx.env, &parsed.tuple) else {
        return Verdict::Pass(PassReason::NotOurs);
    };
    entries.own = found.handle.entry();
    if entries.own.side != FlowSide::Source.byte() {
        return Verdict::Pass(PassReason::NotOurs);
    }
    if parsed.is_part_of_sctp() {
        return Verdict::Drop(DropReason::Fragmented);
    }
    let now = cx.env.now();
    touch(cx.env, &found.handle, &entries.own, parsed.tcp_flags, now);
    let is_request = entries.own.flags.has(FlowFlags::REQUEST);
    if found.table == FlowTable::Opening
        && let Err(reason) = P::advance_reply(cx)
    {
        return Verdict::Drop(reason);
    }
    if cx.scratch.parsed().is_fragment()
        && let Err(reason) = P::note_fragment(cx)
    {
        return Verdict::Drop(reason);
    }
    let (parsed, entries) = cx.scratch.parts();
    let (address, port) = (entries.own.address, entries.own.port);
    let (side, other_port) = (FlowSide::Source, entries.own.other_port);
    if let Err(reason) = rewrite(cx.packet, parsed, side, address, port, other_port) {
        return Verdict::Drop(reason);
    }
    Verdict::Translated(if is_request {
        Translation::MasqueradedRequest
    } else {
        Translation::Reply
    })
}

/// A packet of a flow that has not proven itself, whose entry is `entries.own`. Afterwards that is as it is to be applied.
#[inline(always)]
pub fn advance<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: MasqueradeAddress,
    P: Packet,
    E: Environment<F>,
{
    if cx.scratch.entries().own.flags.has(FlowFlags::REQUEST) {
        return advance_masquerade(cx);
    }
    advance_reply(cx);
    Ok(())
}

/// A reply of a flow that has not proven itself: the request's entry learns what will prove the client.
#[inline(always)]
fn advance_reply<F, P, E>(cx: &mut Context<'_, F, P, E>)
where
    F: Wire,
    P: Packet,
    E: Environment<F>,
{
    let now = cx.env.now();
    let (parsed, entries) = cx.scratch.parts();
    repair(cx.env, &parsed.tuple, entries, now);
    let Some(request) = cx.env.flow(FlowTable::Opening, &entries.other_key) else {
        return;
    };
    if parsed.is_udp() {
        request.set_flags(request.entry().flags.with(FlowFlags::REPLIED));
    } else {
        challenge::ask(cx.packet, parsed, &request);
    }
}

/// A masqueraded request: gets its address and port with the first packet, and is proven with the flow it belongs to.
#[inline(always)]
fn advance_masquerade<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: MasqueradeAddress,
    P: Packet,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let (key, env) = (&parsed.tuple, &mut *cx.env);
    let now = env.now();
    let Some(handle) = env.flow(FlowTable::Opening, key) else {
        // Another CPU has moved it meanwhile, which it does with those alone that have their port.
        return if entries.own.port == Port::ZERO {
            Err(DropReason::FlowNotStored)
        } else {
            Ok(())
        };
    };
    entries.own = handle.entry();
    if entries.own.port == Port::ZERO {
        return masquerade::assign(env, key, entries, cx.packet.interface(), now);
    }
    repair(env, key, entries, now);
    let reversed = key.reversed();
    if env.flow(FlowTable::Proven, &reversed).is_some() {
        promote(env, key, &handle, entries, now);
    }
    Ok(())
}
