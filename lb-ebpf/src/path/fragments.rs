//! Datagrams in pieces. Only the first fragment has ports: it is translated as any packet and leaves what it became; the
//! others, found by the identification they have in common, get the same address. Their transport checksum is in the
//! first one.
//!
//! A fragment that overtakes the first cannot be told from others' traffic but by its destination: to an address that
//! is a Service's it is dropped and counted, so that nothing untranslated goes on; the sender's datagram is lost. At
//! other addresses (a node's own, a client's on the way back) it passes, and the receiver will miss it.
use lb_common::{
    DropReason, FlowFlags, FlowSide, FragmentEntry, FragmentKey, PassReason, Translation, Tuple,
    Verdict,
};

use crate::{
    bytes::{
        checksum::ChecksumDelta,
        headers::{IpHeader as _, Ipv4Header, Wire, next_header},
        packet::Packet,
        parsed::Parsed,
    },
    context::{Context, Hook, environment::Environment},
    path::{
        icmp_quote::Icmp,
        origin::{is_foreign, lead},
        steps::Steps,
    },
    service::frontends::refusal,
};

#[inline(always)]
fn key<F: Wire, P: Packet + ?Sized>(
    packet: &P,
    parsed: &Parsed<F>,
    leaves: bool,
) -> Option<FragmentKey<F>> {
    let (identification, protocol) = if F::VERSION == 4 {
        let ip = packet.header::<Ipv4Header>(parsed.l3_offset())?;
        (u16::from_ne_bytes(ip.identification).into(), ip.protocol)
    } else {
        (parsed.identification(), next_header::FRAGMENT)
    };
    Some(FragmentKey {
        source: parsed.tuple.source,
        destination: parsed.tuple.destination,
        identification,
        protocol: u32::from(protocol) | if leaves { Tuple::<F>::LEAVES } else { 0 },
    })
}

/// Leaves what the first fragment becomes by `entries.own`. An error means that the others could not be found.
#[inline(always)]
pub fn note<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let env = &mut *cx.env;
    if parsed.is_sctp() {
        return Err(DropReason::Fragmented);
    }
    let own = &entries.own;
    let leaves = own.side == FlowSide::Source.byte();
    let key = key(cx.packet, parsed, leaves).ok_or(DropReason::Fragmented)?;
    let entry = FragmentEntry::new(own.address, own.flags, env.now().jiffies);
    if env.set_fragment(&key, &entry) {
        Ok(())
    } else {
        Err(DropReason::Fragmented)
    }
}

/// What becomes of a later fragment, of which `scratch.parsed` has the addresses and the IP header's offset.
#[inline(always)]
pub fn later<F, P, E>(cx: &mut Context<'_, F, P, E>, hook: Hook) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let leaves = hook.side == FlowSide::Source;
    let Some(key) = key(cx.packet, cx.scratch.parsed(), leaves) else {
        return Verdict::Pass(PassReason::Malformed);
    };
    let now = cx.env.now();
    let entry = cx.env.fragment(&key);
    let entry = entry.filter(|entry| !now.is_after(entry.noted, FragmentEntry::<F>::SECONDS));
    let Some(entry) = entry else {
        return unknown(cx, hook, &key);
    };
    match rewrite(cx, hook, &entry) {
        Ok(()) => Verdict::Translated(Translation::LaterFragment),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// A fragment without a first one.
#[inline(always)]
fn unknown<F, P, E>(cx: &Context<'_, F, P, E>, hook: Hook, key: &FragmentKey<F>) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    // To an address that no Service has it may be a part of an answer.
    if hook.side == FlowSide::Destination
        && refusal(cx.env, key.destination) == Some(DropReason::NoSuchPort)
        && !is_foreign(cx.packet, cx.env, hook.link)
    {
        return Verdict::Drop(DropReason::EarlyFragment);
    }
    Verdict::Pass(PassReason::LaterFragment)
}

#[inline(always)]
fn rewrite<F, P, E>(
    cx: &mut Context<'_, F, P, E>,
    hook: Hook,
    entry: &FragmentEntry<F>,
) -> Result<(), DropReason>
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let (parsed, packet) = (cx.scratch.parsed(), &mut *cx.packet);
    let (source, old) = match hook.side {
        FlowSide::Destination => (parsed.tuple.source, parsed.tuple.destination),
        FlowSide::Source => (parsed.tuple.destination, parsed.tuple.source),
    };
    let addresses = ChecksumDelta::NONE.replace(old.as_ref(), entry.address.as_ref());
    let ip = packet
        .header_mut::<F::IpHeader>(parsed.l3_offset())
        .ok_or(DropReason::HalfRewritten)?;
    match hook.side {
        FlowSide::Destination => ip.set_destination(entry.address),
        FlowSide::Source => ip.set_source(entry.address),
    }
    ip.adjust_checksum(addresses);
    if F::VERSION == 6 {
        packet.adjust_sum(addresses);
    }
    if hook.side == FlowSide::Destination && entry.flags.has(FlowFlags::BRIDGED) {
        lead(
            packet,
            hook.link,
            cx.env,
            entry.flags,
            source,
            entry.address,
        )?;
    }
    Ok(())
}
