//! Backend to client, on egress: replies get their frontend's address back. Masqueraded requests go out this way too.
use lb_common::{DropReason, FlowFlags, FlowSide, PassReason, Port, Translation, Verdict};

use crate::{
    clock::{Clock, Instant},
    flow::{find, promote, repair, touch},
    headers::{TcpHeader, Wire},
    masquerade::{self, MasqueradeAddress},
    packet::Packet,
    parse::Parsed,
    rewrite::rewrite,
    scratch::Entries,
    tables::{FlowHandle, FlowTable, Tables},
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
    F: Wire + MasqueradeAddress,
    P: Packet,
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
    if parsed.is_fragment() {
        return Verdict::Drop(DropReason::Fragmented);
    }
    let now = clock.now();
    touch(found.handle, &entries.own, parsed.tcp_flags, now);
    let is_request = entries.own.flags.has(FlowFlags::REQUEST);
    if found.table == FlowTable::Opening {
        if is_request {
            let advanced = advance_masquerade(
                packet.interface(),
                parsed,
                found.handle,
                entries,
                tables,
                clock,
                now,
            );
            if let Err(reason) = advanced {
                return Verdict::Drop(reason);
            }
        } else {
            advance_reply(packet, parsed, entries, tables, now);
        }
    }
    let (address, port) = (entries.own.address, entries.own.port);
    if let Err(reason) = rewrite(packet, parsed, FlowSide::Source, address, port) {
        return Verdict::Drop(reason);
    }
    Verdict::Translated(if is_request {
        Translation::MasqueradedRequest
    } else {
        Translation::Reply
    })
}

/// A reply of a flow that has not proven itself: the request's entry learns what will prove the client.
#[inline(always)]
fn advance_reply<F: Wire, P: Packet, T: Tables<F>>(
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
    } else if parsed.tcp_flags.is_syn_ack()
        && let Some(tcp) = packet.header::<TcpHeader>(parsed.l4_offset())
    {
        request.challenge(u32::from_be_bytes(tcp.sequence).wrapping_add(1));
    }
}

/// A masqueraded request: gets its address and port with the first packet, and is proven with the flow it belongs to.
#[inline(always)]
fn advance_masquerade<F, T, C>(
    interface: u32,
    parsed: &Parsed<F>,
    handle: T::Flow,
    entries: &mut Entries<F>,
    tables: &mut T,
    clock: &mut C,
    now: Instant,
) -> Result<(), DropReason>
where
    F: Wire + MasqueradeAddress,
    T: Tables<F>,
    C: Clock,
{
    let key = &parsed.tuple;
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
