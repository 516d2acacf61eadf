//! From bytes to a verdict: parse, once more after a pull if need be, then the path of the family.
use lb_common::{FlowSide, PassReason, V4, V6, Verdict};

use crate::{
    bytes::{
        headers::Wire,
        parse::{Extensions, Link, Network, Parse, ParseError, network},
        parsed::Parsed,
    },
    context::{
        Context, Hook,
        environment::Environment,
        scratch::{FamilyMemory, Memory},
    },
    path::{icmp_quote::Icmp, reply, request, steps::Steps},
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

/// A packet without a tuple of its own.
#[derive(Clone, Copy)]
enum Untupled {
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
    memory: &mut Memory<'_>,
) -> Result<Family, (Family, ParseError)> {
    match network(packet, link).map_err(|error| (Family::V4, error))? {
        Network::V4(l3_offset) => V4::parse(packet, l3_offset, &mut memory.v4())
            .map(|()| Family::V4)
            .map_err(|error| (Family::V4, error)),
        Network::V6(l3_offset) => V6::parse(packet, l3_offset, &mut memory.v6())
            .map(|()| Family::V6)
            .map_err(|error| (Family::V6, error)),
    }
}

#[inline(always)]
fn parse<P: Extensions>(
    packet: &mut P,
    link: Link,
    memory: &mut Memory<'_>,
) -> Result<Family, Untupled> {
    let first = match parse_once(packet, link, memory) {
        Err((_, ParseError::OutOfReach)) if packet.pull() => parse_once(packet, link, memory),
        other => other,
    };
    first.map_err(|(family, error)| match error {
        ParseError::Portless => Untupled::Portless(family),
        ParseError::LaterFragment => Untupled::LaterFragment(family),
        ParseError::NotOurs(reason) => Untupled::NotOurs(reason),
        ParseError::OutOfReach => Untupled::NotOurs(PassReason::Malformed),
    })
}

/// What becomes of a packet that enters or leaves by an attached device.
#[inline(always)]
pub fn run<P, E, O>(
    packet: &mut P,
    hook: Hook,
    mut memory: Memory<'_>,
    env: &mut E,
    observer: &mut O,
) -> Verdict
where
    P: Steps<V4> + Steps<V6>,
    E: Environment<V4> + Environment<V6>,
    O: Observer,
{
    let parsed = parse(packet, hook.link, &mut memory);
    // From here on the compiler reads what was parsed from memory: see `scratch`.
    let mut memory = memory.forget();
    match parsed {
        Ok(Family::V4) => with_tuple(packet, hook, memory.v4(), env, observer),
        Ok(Family::V6) => with_tuple(packet, hook, memory.v6(), env, observer),
        Err(Untupled::NotOurs(reason)) => Verdict::Pass(reason),
        Err(Untupled::Portless(Family::V4)) => portless(packet, hook, memory.v4(), env, observer),
        Err(Untupled::Portless(Family::V6)) => portless(packet, hook, memory.v6(), env, observer),
        Err(Untupled::LaterFragment(Family::V4)) => {
            later_fragment(packet, hook, memory.v4(), env, observer)
        }
        Err(Untupled::LaterFragment(Family::V6)) => {
            later_fragment(packet, hook, memory.v6(), env, observer)
        }
    }
}

macro_rules! observed {
    ($(#[$doc:meta])* $name:ident, $cx:ident, $hook:ident => $path:expr) => {
        $(#[$doc])*
        #[inline(always)]
        fn $name<F, P, E, O>(
            packet: &mut P,
            $hook: Hook,
            scratch: FamilyMemory<'_, F>,
            env: &mut E,
            observer: &mut O,
        ) -> Verdict
        where
            F: Icmp,
            P: Steps<F>,
            E: Environment<F>,
            O: Observer,
        {
            let mut context = Context { packet, scratch, env };
            let $cx = &mut context;
            let verdict = $path;
            observer.observe($cx.scratch.parsed(), verdict);
            verdict
        }
    };
}
observed!(
    /// A packet with ports.
    with_tuple, cx, hook => match hook.side {
        FlowSide::Destination => request::ingress(cx, hook.link),
        FlowSide::Source => {
            let parsed = &mut cx.scratch.all().parsed;
            parsed.tuple = parsed.tuple.leaving();
            reply::egress(cx)
        }
    }
);
observed!(
    /// ICMP, or a protocol without ports.
    portless, cx, hook => P::portless(cx, hook)
);
observed!(
    /// A fragment that is not the first.
    later_fragment, cx, hook => P::later_fragment(cx, hook)
);
