//! From bytes to a verdict: parse, once more after a pull if need be, then the path of the family.
use core::hint::black_box;

use lb_common::{PassReason, V4, V6, Verdict};

use crate::{
    clock::Clock,
    detour::{Detours, Extensions},
    headers::Wire,
    parse::{Link, Network, Parse, ParseError, Parsed, network},
    reply_path, request_path,
    scratch::Scratch,
    tables::Tables,
};

/// Who wants to know about verdicts on packets that have a tuple.
pub trait Observer {
    /// Called once for a parsed packet, with the tuple it came with.
    fn observe<F: Wire>(&mut self, parsed: &Parsed<F>, verdict: Verdict);
}

/// The family of a packet that is parsed.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

#[inline(always)]
fn parse_once<P: Extensions>(
    packet: &P,
    link: Link,
    scratch: &mut Scratch,
) -> Result<Family, ParseError> {
    match network(packet, link)? {
        Network::V4(l3_offset) => {
            V4::parse(packet, l3_offset, &mut scratch.v4.parsed)?;
            Ok(Family::V4)
        }
        Network::V6(l3_offset) => {
            V6::parse(packet, l3_offset, &mut scratch.v6.parsed)?;
            Ok(Family::V6)
        }
    }
}

#[inline(always)]
fn parse<P: Extensions>(
    packet: &mut P,
    link: Link,
    scratch: &mut Scratch,
) -> Result<Family, PassReason> {
    let first = match parse_once(packet, link, scratch) {
        Err(ParseError::OutOfReach) if packet.pull() => parse_once(packet, link, scratch),
        other => other,
    };
    first.map_err(|error| match error {
        ParseError::NotOurs(reason) => reason,
        ParseError::OutOfReach => PassReason::Malformed,
    })
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
    P: Detours<V4> + Detours<V6>,
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
            let verdict = request_path::ingress(packet, link, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Ok(Family::V6) => {
            let (parsed, entries) = (&scratch.v6.parsed, &mut scratch.v6.entries);
            let verdict = request_path::ingress(packet, link, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Err(reason) => Verdict::Pass(reason),
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
    P: Detours<V4> + Detours<V6>,
    T: Tables<V4> + Tables<V6>,
    C: Clock,
    O: Observer,
{
    let family = parse(packet, link, scratch);
    let scratch = black_box(scratch);
    match family {
        Ok(Family::V4) => {
            let (parsed, entries) = (&scratch.v4.parsed, &mut scratch.v4.entries);
            let verdict = reply_path::egress(packet, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Ok(Family::V6) => {
            let (parsed, entries) = (&scratch.v6.parsed, &mut scratch.v6.entries);
            let verdict = reply_path::egress(packet, parsed, entries, tables, clock);
            observer.observe(parsed, verdict);
            verdict
        }
        Err(reason) => Verdict::Pass(reason),
    }
}
