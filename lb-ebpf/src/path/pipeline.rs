//! From bytes to a verdict: parse, once more after a pull if need be, then the path of the family.
use core::hint::black_box;

use lb_common::{FlowSide, PassReason, V4, V6, Verdict};

use crate::{
    bytes::{
        headers::Wire,
        parse::{Extensions, Link, Network, Parse, ParseError, Parsed, network},
    },
    context::{clock::Clock, scratch::Scratch, tables::Tables},
    path::{
        reply, request,
        steps::{Hook, Steps},
    },
};

/// Who wants to know about verdicts on packets that have a tuple.
pub trait Observer {
    /// Called once for a parsed packet, with the tuple it came with; for an ICMP error, with that of the packet it quotes.
    fn observe<F: Wire>(&mut self, parsed: &Parsed<F>, verdict: Verdict);
}

/// The family of a packet that is parsed.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// A packet without ports, or whose ports are nobody's concern.
#[derive(Clone, Copy)]
enum Aside {
    /// ICMP, or a protocol without ports: its family's scratch memory has its addresses and offsets.
    Portless(Family),
    /// A later fragment: likewise, but for the transport header's offset.
    LaterFragment(Family),
    /// It passes.
    NotOurs(PassReason),
}

#[inline(always)]
fn parse_once<P: Extensions>(
    packet: &P,
    link: Link,
    scratch: &mut Scratch,
) -> Result<Family, (Family, ParseError)> {
    match network(packet, link).map_err(|error| (Family::V4, error))? {
        Network::V4(l3_offset) => V4::parse(packet, l3_offset, &mut scratch.v4.parsed)
            .map(|()| Family::V4)
            .map_err(|error| (Family::V4, error)),
        Network::V6(l3_offset) => V6::parse(packet, l3_offset, &mut scratch.v6.parsed)
            .map(|()| Family::V6)
            .map_err(|error| (Family::V6, error)),
    }
}

#[inline(always)]
fn parse<P: Extensions>(
    packet: &mut P,
    link: Link,
    scratch: &mut Scratch,
) -> Result<Family, Aside> {
    let first = match parse_once(packet, link, scratch) {
        Err((_, ParseError::OutOfReach)) if packet.pull() => parse_once(packet, link, scratch),
        other => other,
    };
    first.map_err(|(family, error)| match error {
        ParseError::Portless => Aside::Portless(family),
        ParseError::LaterFragment => Aside::LaterFragment(family),
        ParseError::NotOurs(reason) => Aside::NotOurs(reason),
        ParseError::OutOfReach => Aside::NotOurs(PassReason::Malformed),
    })
}

/// What becomes of a packet without a tuple of its own.
#[inline(always)]
fn aside<P, T, C, O>(
    packet: &mut P,
    hook: Hook,
    what: Aside,
    scratch: &mut Scratch,
    tables: &mut T,
    clock: &mut C,
    observer: &mut O,
) -> Verdict
where
    P: Steps<V4> + Steps<V6>,
    T: Tables<V4> + Tables<V6>,
    C: Clock,
    O: Observer,
{
    let (verdict, family) = match what {
        Aside::NotOurs(reason) => return Verdict::Pass(reason),
        Aside::Portless(Family::V4) => {
            let verdict = packet.portless(hook, &mut scratch.v4, tables);
            (verdict, Family::V4)
        }
        Aside::Portless(Family::V6) => {
            let verdict = packet.portless(hook, &mut scratch.v6, tables);
            (verdict, Family::V6)
        }
        Aside::LaterFragment(Family::V4) => {
            let verdict = packet.later_fragment(hook, &mut scratch.v4, tables, clock);
            (verdict, Family::V4)
        }
        Aside::LaterFragment(Family::V6) => {
            let verdict = packet.later_fragment(hook, &mut scratch.v6, tables, clock);
            (verdict, Family::V6)
        }
    };
    match family {
        Family::V4 => observer.observe(&scratch.v4.parsed, verdict),
        Family::V6 => observer.observe(&scratch.v6.parsed, verdict),
    }
    verdict
}

/// What becomes of a packet that enters by an attached device.
#[inline(always)]
pub fn ingress<P, T, C, O>(
    packet: &mut P,
    link: Link,
    scratch: &mut Scratch,
    tables: &mut T,
    clock: &mut C,
    observer: &mut O,
) -> Verdict
where
    P: Steps<V4> + Steps<V6>,
    T: Tables<V4> + Tables<V6>,
    C: Clock,
    O: Observer,
{
    let family = parse(packet, link, scratch);
    // From here on the compiler reads what was parsed from memory: see `scratch`.
    let scratch = black_box(scratch);
    match family {
        Ok(Family::V4) => {
            let (parsed, entries) = (&scratch.v4.parsed, &mut scratch.v4.entries);
            let verdict = request::ingress(packet, link, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Ok(Family::V6) => {
            let (parsed, entries) = (&scratch.v6.parsed, &mut scratch.v6.entries);
            let verdict = request::ingress(packet, link, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Err(what) => {
            let side = FlowSide::Destination;
            aside(
                packet,
                Hook { side, link },
                what,
                scratch,
                tables,
                clock,
                observer,
            )
        }
    }
}

/// What becomes of a packet that leaves by an attached device.
#[inline(always)]
pub fn egress<P, T, C, O>(
    packet: &mut P,
    link: Link,
    scratch: &mut Scratch,
    tables: &mut T,
    clock: &mut C,
    observer: &mut O,
) -> Verdict
where
    P: Steps<V4> + Steps<V6>,
    T: Tables<V4> + Tables<V6>,
    C: Clock,
    O: Observer,
{
    let family = parse(packet, link, scratch);
    let scratch = black_box(scratch);
    match family {
        Ok(Family::V4) => {
            let (parsed, entries) = (&scratch.v4.parsed, &mut scratch.v4.entries);
            let verdict = reply::egress(packet, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Ok(Family::V6) => {
            let (parsed, entries) = (&scratch.v6.parsed, &mut scratch.v6.entries);
            let verdict = reply::egress(packet, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Err(what) => {
            let side = FlowSide::Source;
            aside(
                packet,
                Hook { side, link },
                what,
                scratch,
                tables,
                clock,
                observer,
            )
        }
    }
}
