//! The steps as global functions, subprograms of the verifier: it looks at each by itself, once for every program that calls it, with
//! nothing known of the caller (kernel commit 51c39bb1d5d1). What they work on they find in the scratch memory.
use core::hint::black_box;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use lb_common::{DropReason, FlowSide, PassReason, Translation, V4, V6, Verdict};
use lb_ebpf::{
    bytes::parse::{Extensions, Link, ParseError, Parsed, skip_extensions},
    context::{
        clock::Clock,
        scratch::{Entries, FamilyScratch},
        tables::Tables,
    },
    path::{
        fragments, icmp, opening, reply, request,
        steps::{Hook, Steps},
    },
};

use super::{kernel_clock::KernelClock, skb_packet::SkbPacket, tables::KernelTables, tc::scratch};

/// What a step returns when nothing is to be dropped; otherwise it is one more than the reason's number.
const DONE: u32 = 0;

#[inline(always)]
fn number(result: Result<(), DropReason>) -> u32 {
    match result {
        Ok(()) => DONE,
        Err(reason) => reason as u32 + 1,
    }
}

#[inline(always)]
fn result(number: u32) -> Result<(), DropReason> {
    match number {
        DONE => Ok(()),
        number => Err(DropReason::from_number(number - 1)),
    }
}

/// What the walk over extension headers returns beside [`DONE`].
const OUT_OF_REACH: u32 = 1;
const LATER_FRAGMENT: u32 = 2;
const MALFORMED: u32 = 3;

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn skip_extensions_v6(skb: *mut __sk_buff) -> u32 {
    let Some(scratch) = scratch() else {
        return MALFORMED;
    };
    let packet = SkbPacket(TcContext::new(skb));
    match skip_extensions(&packet, &mut scratch.v6.parsed) {
        Ok(()) => DONE,
        Err(ParseError::OutOfReach) => OUT_OF_REACH,
        Err(ParseError::LaterFragment) => LATER_FRAGMENT,
        Err(ParseError::NotOurs(_) | ParseError::Portless) => MALFORMED,
    }
}

impl Extensions for SkbPacket {
    #[inline(always)]
    fn skip_extensions(&self, _parsed: &mut Parsed<V6>) -> Result<(), ParseError> {
        Err(match skip_extensions_v6(self.0.skb.skb) {
            DONE => return Ok(()),
            OUT_OF_REACH => ParseError::OutOfReach,
            LATER_FRAGMENT => ParseError::LaterFragment,
            _ => ParseError::NotOurs(PassReason::Malformed),
        })
    }
}

/// A hook as a number.
const EGRESS: u32 = 1;
const ETHERNET: u32 = 2;

#[inline(always)]
fn hook(number: u32) -> Hook {
    Hook {
        side: if number & EGRESS == 0 {
            FlowSide::Destination
        } else {
            FlowSide::Source
        },
        link: if number & ETHERNET == 0 {
            Link::Ip
        } else {
            Link::Ethernet
        },
    }
}

#[inline(always)]
fn hook_number(hook: Hook) -> u32 {
    let side = match hook.side {
        FlowSide::Destination => 0,
        FlowSide::Source => EGRESS,
    };
    let link = match hook.link {
        Link::Ip => 0,
        Link::Ethernet => ETHERNET,
    };
    side | link
}

/// What a step returns that decides what becomes of a packet.
const PASSED: u32 = 0;
const TRANSLATED: u32 = 1;
/// And the reason's number.
const DROPPED: u32 = 2;

/// Of translations there is one, of reasons to pass none that matters any more.
#[inline(always)]
fn verdict_number(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass(_) => PASSED,
        Verdict::Translated(_) => TRANSLATED,
        Verdict::Drop(reason) => DROPPED + reason as u32,
    }
}

#[inline(always)]
fn verdict(number: u32, translation: Translation) -> Verdict {
    match number {
        PASSED => Verdict::Pass(PassReason::NotOurs),
        TRANSLATED => Verdict::Translated(translation),
        number => Verdict::Drop(DropReason::from_number(number - DROPPED)),
    }
}

macro_rules! subprograms {
    ($family:ident, $scratch:ident:
     { $($method:ident is $global:ident, $path:expr;)* }
     without the packet: { $($blind_method:ident is $blind_global:ident, $blind_path:expr;)* }
     with a verdict: $icmp:ident, $fragment:ident) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $global(skb: *mut __sk_buff) -> u32 {
                let Some(scratch) = scratch() else {
                    return DONE;
                };
                let (parsed, entries) = (&scratch.$scratch.parsed, &mut scratch.$scratch.entries);
                // An argument that is not used is not passed, and the verifier wants it.
                let mut packet = SkbPacket(TcContext::new(black_box(skb)));
                number($path(&mut packet, parsed, entries, &mut KernelTables, &mut KernelClock))
            }
        )*
        // An argument that is not used would not be passed, and the verifier refuses such calls: these have none.
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $blind_global() -> u32 {
                let Some(scratch) = scratch() else {
                    return DONE;
                };
                let (parsed, entries) = (&scratch.$scratch.parsed, &mut scratch.$scratch.entries);
                number($blind_path(parsed, entries, &mut KernelTables, &mut KernelClock))
            }
        )*
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $icmp(skb: *mut __sk_buff, at: u32) -> u32 {
            let Some(scratch) = scratch() else {
                return PASSED;
            };
            let mut packet = SkbPacket(TcContext::new(skb));
            let scratch = &mut scratch.$scratch;
            let tables = &mut KernelTables;
            verdict_number(icmp::message(&mut packet, hook(at), scratch, tables))
        }
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $fragment(skb: *mut __sk_buff, at: u32) -> u32 {
            let Some(scratch) = scratch() else {
                return PASSED;
            };
            let mut packet = SkbPacket(TcContext::new(skb));
            let scratch = &mut scratch.$scratch;
            let (tables, clock) = (&mut KernelTables, &KernelClock);
            verdict_number(fragments::later(
                &mut packet,
                hook(at),
                scratch,
                tables,
                clock,
            ))
        }
        impl Steps<$family> for SkbPacket {
            $(subprograms!(@method $family, $method, self, $global(self.0.skb.skb));)*
            $(subprograms!(@method $family, $blind_method, self, $blind_global());)*
            #[inline(always)]
            fn portless<T: Tables<$family>>(
                &mut self,
                hook: Hook,
                _scratch: &mut FamilyScratch<$family>,
                _tables: &mut T,
            ) -> Verdict {
                let number = $icmp(self.0.skb.skb, hook_number(hook));
                verdict(number, Translation::IcmpError)
            }
            #[inline(always)]
            fn later_fragment<T: Tables<$family>, C: Clock>(
                &mut self,
                hook: Hook,
                _scratch: &mut FamilyScratch<$family>,
                _tables: &mut T,
                _clock: &mut C,
            ) -> Verdict {
                let number = $fragment(self.0.skb.skb, hook_number(hook));
                verdict(number, Translation::LaterFragment)
            }
        }
    };
    (@method $family:ident, $method:ident, $this:ident, $call:expr) => {
        #[inline(always)]
        fn $method<T: Tables<$family>, C: Clock>(
            &mut $this,
            _parsed: &Parsed<$family>,
            _entries: &mut Entries<$family>,
            _tables: &mut T,
            _clock: &mut C,
        ) -> Result<(), DropReason> {
            result($call)
        }
    };
}

subprograms!(V4, v4:
    {
    choose is choose_v4, opening::choose;
    advance_request is advance_request_v4, request::advance;
    advance_reply is advance_reply_v4, reply::advance;
    note_fragment is note_fragment_v4, fragments::note;
    }
    without the packet: {
    reserve is reserve_v4, opening::reserve;
    remember is remember_v4, opening::remember;
    }
    with a verdict: icmp_v4, later_fragment_v4
);
subprograms!(V6, v6:
    {
    choose is choose_v6, opening::choose;
    advance_request is advance_request_v6, request::advance;
    advance_reply is advance_reply_v6, reply::advance;
    note_fragment is note_fragment_v6, fragments::note;
    }
    without the packet: {
    reserve is reserve_v6, opening::reserve;
    remember is remember_v6, opening::remember;
    }
    with a verdict: icmp_v6, later_fragment_v6
);
