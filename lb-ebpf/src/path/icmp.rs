//! ICMP messages that speak of another packet, which they quote: errors and redirects. And pings of Services.
//!
//! A message about a packet of a flow goes the way of that flow's answers, so the turned tuple of the quoted packet finds
//! the very entry by which an answer would be translated at the same hook. An error is translated by it (see
//! [`crate::path::icmp_error`]). A redirect is dropped, as netfilter does: to whom the sender believes it is talking, the
//! router that redirects it does not know.
//!
//! At a Service's address nobody can be asked whether he is there: a ping of it is refused like a packet to a port that the
//! Service does not have, as kube-proxy does; and so is every protocol that has no ports that are known here.
use lb_common::{DropReason, FlowSide, PassReason, Port, Verdict};

use crate::{
    bytes::{
        headers::{IcmpHeader, IpHeader as _},
        parse::ParseError,
    },
    context::{
        Context, Hook,
        environment::{Environment, FlowHandle as _},
        scratch::FamilyMemory,
    },
    flow::find::find,
    path::{
        direct, icmp_error,
        icmp_quote::{Icmp, Quote},
        origin::is_foreign,
        steps::Steps,
    },
    service::frontends,
};

/// What becomes of a packet without ports, of which `scratch.parsed` has the addresses and offsets. Afterwards that is the packet
/// the message quotes, if it quotes one.
#[inline(always)]
pub fn message<F, P, E>(cx: &mut Context<'_, F, P, E>, hook: Hook) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    if !cx.scratch.parsed().is_icmp() {
        return without_ports(cx, hook, false);
    }
    // The parse has seen the IP headers, and no more.
    cx.packet.pull();
    let offset = cx.scratch.parsed().l4_offset();
    let Some(header) = cx.packet.header::<IcmpHeader>(offset) else {
        return Verdict::Pass(PassReason::Malformed);
    };
    match F::quote(cx.packet, header.kind, offset) {
        Quote::None if header.kind == F::ECHO => without_ports(cx, hook, true),
        Quote::None => Verdict::Pass(PassReason::OtherProtocol),
        Quote::OfError(at) => match read(cx.packet, at, &mut cx.scratch) {
            Ok(()) => error(cx, hook),
            Err(reason) => Verdict::Pass(reason),
        },
        Quote::OfRedirect(at) => match read(cx.packet, at, &mut cx.scratch) {
            Ok(()) => redirect(&mut cx.scratch, cx.env),
            Err(reason) => Verdict::Pass(reason),
        },
    }
}

/// A ping, or another protocol: to a Service's address it is refused. To an address that no Service has only what begins a
/// conversation is dropped (`path/unserved.rs`): a ping; of other protocols it is not known.
#[inline(always)]
fn without_ports<F, P, E>(cx: &Context<'_, F, P, E>, hook: Hook, begins: bool) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    match frontends::refusal(cx.env, cx.scratch.parsed().tuple.destination) {
        None => Verdict::Pass(PassReason::OtherProtocol),
        Some(DropReason::NoSuchService) if !begins => Verdict::Pass(PassReason::OtherProtocol),
        Some(_)
            if hook.side == FlowSide::Destination && is_foreign(cx.packet, cx.env, hook.link) =>
        {
            Verdict::Pass(PassReason::OtherProtocol)
        }
        Some(reason) => Verdict::Drop(reason),
    }
}

/// Notes whose message it is, and reads the packet that it quotes at `quoted`.
#[inline(always)]
fn read<F: Icmp, P: Steps<F>>(
    packet: &P,
    quoted: usize,
    scratch: &mut FamilyMemory<'_, F>,
) -> Result<(), PassReason> {
    let memory = scratch.all();
    let (parsed, message) = (&memory.parsed, &mut memory.message);
    let l3_offset = parsed.l3_offset();
    let ip = packet.header::<F::IpHeader>(l3_offset);
    let end = ip.ok_or(PassReason::Malformed)?.end();
    message.source = parsed.tuple.source;
    message.destination = parsed.tuple.destination;
    message.set_place(l3_offset, parsed.l4_offset(), l3_offset + end);
    F::parse_quote(packet, quoted, scratch).map_err(|error| match error {
        ParseError::NotOurs(reason) => reason,
        ParseError::Portless => PassReason::OtherProtocol,
        ParseError::LaterFragment => PassReason::LaterFragment,
        ParseError::OutOfReach => PassReason::Malformed,
    })
}

/// An error: to be translated, if answers to the quoted packet are.
#[inline(always)]
fn error<F, P, E>(cx: &mut Context<'_, F, P, E>, hook: Hook) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let scratch = cx.scratch.all();
    // Whoever gets the error must have sent the packet.
    if scratch.message.destination != scratch.parsed.tuple.source {
        return Verdict::Pass(PassReason::NotOurs);
    }
    let entries = &mut scratch.entries;
    entries.other_key = scratch.parsed.tuple.reversed();
    if hook.side == FlowSide::Source {
        entries.other_key = entries.other_key.leaving();
    }
    let Some(found) = find(cx.env, &entries.other_key) else {
        return Verdict::Pass(PassReason::NotOurs);
    };
    entries.own = found.handle.entry();
    if direct::keeps_port(&entries.own) || direct::is_tracked_below(cx.packet, cx.env, &entries.own)
    {
        return Verdict::Pass(PassReason::Direct);
    }
    // A masquerade that has no port yet has let no packet out.
    if entries.own.side != hook.side.byte() || entries.own.port == Port::ZERO {
        return Verdict::Pass(PassReason::NotOurs);
    }
    icmp_error::translate(cx.packet, hook, scratch, cx.env)
}

/// A redirect: not for who sends packets of a flow that is translated, here or at the other side of the node.
#[inline(always)]
fn redirect<F, E>(scratch: &mut FamilyMemory<'_, F>, env: &E) -> Verdict
where
    F: Icmp,
    E: Environment<F>,
{
    let (parsed, entries) = scratch.parts();
    let quoted = &parsed.tuple;
    entries.other_key = *quoted;
    for turn in 0..4 {
        if find(env, &entries.other_key)
            .is_some_and(|found| !direct::keeps_port(&found.handle.entry()))
        {
            return Verdict::Drop(DropReason::Redirect);
        }
        entries.other_key = if turn == 1 {
            entries.other_key.reversed()
        } else {
            entries.other_key.crossed()
        };
    }
    Verdict::Pass(PassReason::NotOurs)
}
