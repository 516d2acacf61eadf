//! Backend to client, on egress: replies get their frontend's address back. Masqueraded requests go out this way too.
use lb_common::{DropReason, FlowFlags, FlowSide, PassReason, Port, Translation, Verdict};

use crate::{
    bytes::{headers::Wire, packet::Packet, parse::Parsed, rewrite::rewrite},
    context::{
        clock::{Clock, Instant},
        scratch::Entries,
        tables::{FlowHandle, FlowTable, Tables},
    },
    flow::{challenge, find::find, make::repair, prove::promote, teardown::touch},
    path::icmp_quote::Icmp,
    path::steps::Steps,
    service::masquerade::{self, MasqueradeAddress},
};

/// A packet that leaves the node or goes to one of its pods.
#[inline(always)]
pub fn egress<F, P, T, C>(
    packet: &mut P,
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    tables: &mut T,
    clock: &mut C,
) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    T: Tables<F>,
    C: Clock,
{
    let Some(found) = find(tables, &parsed.tuple) else {
        return Verdict::Pass(PassReason::NotOurs);
    };
    entries.own = found.handle.entry();
    if entries.own.side != FlowSide::Source.byte() {
        return Verdict::Pass(PassReason::NotOurs);
    }
    if parsed.is_part_of_sctp() {
        return Verdict::Drop(DropReason::Fragmented);
    }
    touch(
        tables,
        found.handle,
        &entries.own,
        parsed.tcp_flags,
        clock.now(),
    );
    let is_request = entries.own.flags.has(FlowFlags::REQUEST);
    if found.table == FlowTable::Opening
        && let Err(reason) = packet.advance_reply(parsed, entries, tables, clock)
    {
        return Verdict::Drop(reason);
    }
    if parsed.is_fragment()
        && let Err(reason) = packet.note_fragment(parsed, entries, tables, clock)
    {
        return Verdict::Drop(reason);
    }
    let (address, port) = (entries.own.address, entries.own.port);
    let other_port = entries.own.other_port;
    if let Err(reason) = rewrite(packet, parsed, FlowSide::Source, address, port, other_port) {
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
pub fn advance<F, P, T, C>(
    packet: &P,
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    tables: &mut T,
    clock: &mut C,
) -> Result<(), DropReason>
where
    F: MasqueradeAddress,
    P: Packet + ?Sized,
    T: Tables<F>,
    C: Clock,
{
    if entries.own.flags.has(FlowFlags::REQUEST) {
        return advance_masquerade(packet.interface(), parsed, entries, tables, clock);
    }
    advance_reply(packet, parsed, entries, tables, clock.now());
    Ok(())
}

/// A reply of a flow that has not proven itself: the request's entry learns what will prove the client.
#[inline(always)]
fn advance_reply<F: Wire, P: Packet + ?Sized, T: Tables<F>>(
    packet: &P,
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    tables: &mut T,
    now: Instant,
) {
    repair(tables, &parsed.tuple, entries, now);
    let Some(request) = tables.flow(FlowTable::Opening, &entries.other_key) else {
        return;
    };
    if parsed.is_udp() {
        request.set_flags(request.entry().flags.with(FlowFlags::REPLIED));
    } else if let Some(number) = challenge::asked(packet, parsed) {
        request.challenge(number);
    }
}

/// A masqueraded request: gets its address and port with the first packet, and is proven with the flow it belongs to.
#[inline(always)]
fn advance_masquerade<F, T, C>(
    interface: u32,
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    tables: &mut T,
    clock: &mut C,
) -> Result<(), DropReason>
where
    F: MasqueradeAddress,
    T: Tables<F>,
    C: Clock,
{
    let (key, now) = (&parsed.tuple, clock.now());
    let Some(handle) = tables.flow(FlowTable::Opening, key) else {
        // Another CPU has moved it meanwhile, which it does with those alone that have their port.
        return if entries.own.port == Port::ZERO {
            Err(DropReason::FlowNotStored)
        } else {
            Ok(())
        };
    };
    entries.own = handle.entry();
    if entries.own.port == Port::ZERO {
        return masquerade::assign(tables, clock, key, entries, interface, now);
    }
    repair(tables, key, entries, now);
    let reversed = key.reversed();
    if tables.flow(FlowTable::Proven, &reversed).is_some() {
        promote(tables, key, handle, entries, now);
    }
    Ok(())
}
