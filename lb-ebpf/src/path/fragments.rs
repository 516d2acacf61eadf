//! Datagrams in pieces. Only the first fragment has ports: it is translated as any packet and leaves what it became; the
//! others, found by the identification they have in common, get the same address. Their transport checksum is in the
//! first one.
//!
//! A fragment that overtakes the first cannot be told from others' traffic but by its destination: to an address that
//! is a Service's it is dropped and counted, so that nothing untranslated goes on; the sender's datagram is lost. At
//! other addresses (a node's own, a client's on the way back) it passes, and the receiver will miss it.
use lb_common::{
    DropReason, FlowFlags, FlowSide, FragmentEntry, FragmentKey, PassReason, Translation, Verdict,
};

use crate::{
    bytes::{
        checksum::ChecksumDelta,
        headers::{IpHeader as _, Ipv4Header, Wire, next_header},
        packet::Packet,
        parse::Parsed,
    },
    context::{
        clock::Clock,
        scratch::{Entries, FamilyScratch},
        tables::Tables,
    },
    path::{
        icmp_quote::Icmp,
        origin::bridge,
        steps::{Hook, Steps},
    },
    service::frontends::refusal,
};

#[inline(always)]
fn key<F: Wire, P: Packet + ?Sized>(packet: &P, parsed: &Parsed<F>) -> Option<FragmentKey<F>> {
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
        protocol: u32::from(protocol),
    })
}

/// Leaves what the first fragment becomes by `entries.own`. An error means that the others could not be found.
#[inline(always)]
pub fn note<F, P, T, C>(
    packet: &P,
    parsed: &Parsed<F>,
    entries: &Entries<F>,
    tables: &mut T,
    clock: &C,
) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet + ?Sized,
    T: Tables<F>,
    C: Clock,
{
    if parsed.is_sctp() {
        return Err(DropReason::Fragmented);
    }
    let key = key(packet, parsed).ok_or(DropReason::Fragmented)?;
    let own = &entries.own;
    let entry = FragmentEntry::new(own.address, own.side, own.flags, clock.now().jiffies);
    if tables.set_fragment(&key, &entry) {
        Ok(())
    } else {
        Err(DropReason::Fragmented)
    }
}

/// What becomes of a later fragment, of which `scratch.parsed` has the addresses and the IP header's offset.
#[inline(always)]
pub fn later<F, P, T, C>(
    packet: &mut P,
    hook: Hook,
    scratch: &FamilyScratch<F>,
    tables: &mut T,
    clock: &C,
) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    T: Tables<F>,
    C: Clock,
{
    let parsed = &scratch.parsed;
    let Some(key) = key(packet, parsed) else {
        return Verdict::Pass(PassReason::Malformed);
    };
    let entry = tables.fragment(&key).filter(|entry| {
        entry.is_of(hook.side)
            && !clock
                .now()
                .is_after(entry.noted, FragmentEntry::<F>::SECONDS)
    });
    let Some(entry) = entry else {
        return unknown(hook, &key, tables);
    };
    match rewrite(packet, hook, parsed, &entry, tables) {
        Ok(()) => Verdict::Translated(Translation::LaterFragment),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// A fragment without a first one.
#[inline(always)]
fn unknown<F: Icmp, T: Tables<F>>(hook: Hook, key: &FragmentKey<F>, tables: &T) -> Verdict {
    if hook.side == FlowSide::Destination && refusal(tables, key.destination).is_some() {
        return Verdict::Drop(DropReason::EarlyFragment);
    }
    Verdict::Pass(PassReason::LaterFragment)
}

#[inline(always)]
fn rewrite<F, P, T>(
    packet: &mut P,
    hook: Hook,
    parsed: &Parsed<F>,
    entry: &FragmentEntry<F>,
    tables: &T,
) -> Result<(), DropReason>
where
    F: Icmp,
    P: Steps<F>,
    T: Tables<F>,
{
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
        bridge(packet, hook.link, tables, source, entry.address)?;
    }
    Ok(())
}
