//! Backend to client, on egress: replies get their frontend's address back. Masqueraded requests go out this way too.
use lb_common::{
    DeviceFlags, DropReason, FlowFlags, FlowSide, PassReason, Port, Translation, Verdict,
};

use crate::{
    bytes::{
        headers::Wire,
        packet::{Forwarding, NOWHERE, Packet},
        rewrite::rewrite,
    },
    context::{
        Context,
        environment::{Environment, FlowHandle as _, FlowTable},
    },
    flow::{challenge, find::find, make::repair, prove::promote, teardown::touch},
    path::{direct, icmp_quote::Icmp, origin::is_at, steps::Steps},
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
        return of_the_node(cx);
    };
    entries.own = found.handle.entry();
    if entries.own.side != FlowSide::Source.byte() {
        return Verdict::Pass(PassReason::NotOurs);
    }
    if direct::is_tracked_below(cx.packet, cx.env, &entries.own) {
        return Verdict::Pass(PassReason::Direct);
    }
    if parsed.is_part_of_sctp() {
        return if direct::keeps_port(&entries.own) {
            Verdict::Pass(PassReason::Direct)
        } else {
            Verdict::Drop(DropReason::Fragmented)
        };
    }
    let now = cx.env.now();
    touch(cx.env, &found.handle, &entries.own, parsed.tcp_flags, now);
    let is_request = entries.own.flags.has(FlowFlags::REQUEST);
    if found.table == FlowTable::Opening
        && let Err(reason) = P::advance_reply(cx)
    {
        return Verdict::Drop(reason);
    }
    if direct::keeps_port(&cx.scratch.entries().own) {
        return Verdict::Pass(PassReason::Direct);
    }
    translate(cx, is_request)
}

/// A packet without a flow: it may open a connection of the node that has the address and port of a masquerade.
#[inline(always)]
fn of_the_node<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let (parsed, _) = cx.scratch.parts();
    // FLOW_MARKS names the classes of masquerade addresses. Below another attached device, the packet may belong to a flow
    // that was masqueraded there.
    if !(parsed.is_udp() || parsed.tcp_flags.opens())
        || parsed.is_part_of_sctp()
        || !cx.env.may_have_unlisted_flows(&parsed.tuple.source)
        || is_at(cx.packet, cx.env, DeviceFlags::LOWER)
    {
        return Verdict::Pass(PassReason::NotOurs);
    }
    if let Err(reason) = P::make_way(cx) {
        return Verdict::Drop(reason);
    }
    if cx.scratch.entries().attempt == 0 {
        return Verdict::Pass(PassReason::NotOurs);
    }
    translate(cx, true)
}

/// Rewrites the source according to `entries.own`. The first packet of a masquerade gets a port before.
#[inline(always)]
fn translate<F, P, E>(cx: &mut Context<'_, F, P, E>, is_request: bool) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    if cx.scratch.entries().own.port == Port::ZERO {
        // A connection of the node has its address already.
        if cx.scratch.entries().own.has_service() {
            let _always_done = P::select_address(cx);
        }
        if let Err(reason) = P::find_port(cx) {
            return Verdict::Drop(reason);
        }
    }
    // Without a Service only ports change, which later fragments do not have.
    if cx.scratch.parsed().is_fragment()
        && cx.scratch.entries().own.has_service()
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
    if is_request {
        return Verdict::Translated(Translation::MasqueradedRequest);
    }
    if cx.scratch.entries().own.epoch != 0 {
        // Asked each time: routes change.
        let client = cx.scratch.parsed().tuple.destination;
        if let Some(device) = cx.packet.next_device(address, client)
            && device != NOWHERE
            && device != cx.packet.interface()
        {
            cx.packet.redirect(device);
        }
    }
    Verdict::Translated(Translation::Reply)
}

/// A packet of a flow that has not proven itself, whose entry is `entries.own`. Afterwards that is as it is to be applied.
#[inline(always)]
pub fn advance<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: MasqueradeAddress + Icmp,
    P: Steps<F>,
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
    P: Packet + Forwarding<F>,
    E: Environment<F>,
{
    let now = cx.env.now();
    let (parsed, entries) = cx.scratch.parts();
    repair(cx.env, &parsed.tuple, entries, now);
    let interface = cx.packet.interface();
    let device = cx.env.device(interface);
    if entries.own.has_service()
        && let Some(device) = device.filter(|it| it.flags.has(DeviceFlags::POLICY_ROUTED))
    {
        let (frontend, client) = (entries.own.address, parsed.tuple.destination);
        let next = cx.packet.next_device(frontend, client);
        // At a port of a bridge the bridge is no other way.
        let elsewhere =
            next.is_some_and(|next| ![NOWHERE, interface, device.bridge].contains(&next));
        entries.own.epoch = u16::from(elsewhere);
        if let Some(reply) = cx.env.flow(FlowTable::Opening, &parsed.tuple) {
            reply.set_epoch(entries.own.epoch);
        }
    }
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
    F: MasqueradeAddress + Icmp,
    P: Steps<F>,
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
        // The port is found afterwards: [`crate::path::masquerade::find_port`].
        return masquerade::begin(env, entries, cx.packet.interface());
    }
    repair(env, key, entries, now);
    let reversed = key.reversed();
    if env.flow(FlowTable::Proven, &reversed).is_some() {
        promote(env, key, &handle, entries, now);
    }
    Ok(())
}
