//! Assignment of masquerade ports, so that no two flows and no connection of the node share one.
use lb_common::{DropReason, FlowFlags, FlowSide, Port};

use crate::{
    context::{
        Context,
        environment::{Environment, FlowHandle as _},
    },
    flow::{find::find, ports::MASQUERADE_TRIES},
    path::{icmp_quote::Icmp, steps::Steps},
    service::masquerade,
};

/// Finds a port for the address of `entries.own` and stores both halves of the masquerade, the replies' half first. (A
/// subprogram of its own: together with the selection of the address it would exceed the stack limit.)
#[inline(always)]
pub fn find_port<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    cx.scratch.entries().random = cx.env.random();
    let mut result = Err(DropReason::NoMasqueradePort);
    for attempt in 0..MASQUERADE_TRIES {
        cx.scratch.entries().attempt = attempt;
        result = P::take_port(cx);
        if result != Err(DropReason::NoMasqueradePort) {
            break;
        }
    }
    result?;
    let (parsed, entries) = cx.scratch.parts();
    masquerade::remember(cx.env, &parsed.tuple, entries)
}

/// One try: [`masquerade::take_port`].
#[inline(always)]
pub fn take_port<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    masquerade::take_port(cx.packet, &mut cx.scratch, cx.env)
}

/// Resolves a conflict between a new connection of the node, or of the host's own NAT, and a masquerade with the same
/// address and port. A closed masquerade is removed. If the masquerade is in use, the new connection gets another port, as
/// in the kernel's connection tracking: `entries.own` is its entry then, without the port, and `entries.attempt` is not 0.
#[inline(always)]
pub fn make_way<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let key = &parsed.tuple;
    entries.attempt = 0;
    entries.other_key = key.reversed().crossed();
    let Some(found) = find(cx.env, &entries.other_key) else {
        return Ok(());
    };
    entries.own = found.handle.entry();
    if !masquerade::is_replies(&entries.own) {
        return Ok(());
    }
    if masquerade::remove_closed(cx.env, &entries.other_key, &entries.own) {
        return Ok(());
    }
    let own = &mut entries.own;
    own.address = key.source;
    own.port = Port::ZERO;
    own.other_port = Port::ZERO;
    own.side = FlowSide::Source.byte();
    own.flags = FlowFlags::REQUEST.with(FlowFlags::MASQUERADE);
    (own.backend_id, own.generation, own.service_id) = (0, 0, 0);
    own.expected_ack = 0;
    entries.attempt = 1;
    Ok(())
}
