//! The steps as global functions, subprograms of the verifier: it looks at each by itself, once for every program that calls it, with
//! nothing known of the caller (kernel commit 51c39bb1d5d1). What they work on they find in the scratch memory.
use core::hint::black_box;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use lb_common::{DropReason, FlowSide, PassReason, Translation, V4, V6, Verdict};
use lb_ebpf::{
    bytes::{
        parse::{Extensions, Link, ParseError, skip_extensions},
        parsed::ParsedMemory,
    },
    context::{Context, Hook, environment::Environment},
    path::{fragments, icmp, masquerade, opening, reply, request, steps::Steps, unserved},
    service::{self, frontends},
};

use super::{environment::Kernel, skb_packet::SkbPacket, tc::memory};

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
    let Some(mut memory) = memory() else {
        return MALFORMED;
    };
    let packet = SkbPacket::new(TcContext::new(skb));
    match skip_extensions(&packet, memory.v6().parsed_mut()) {
        Ok(()) => DONE,
        Err(ParseError::OutOfReach) => OUT_OF_REACH,
        Err(ParseError::LaterFragment) => LATER_FRAGMENT,
        Err(ParseError::NotOurs(_) | ParseError::Portless) => MALFORMED,
    }
}

impl Extensions for SkbPacket {
    #[inline(always)]
    fn skip_extensions<M: ParsedMemory<V6>>(&self, _memory: &mut M) -> Result<(), ParseError> {
        Err(match skip_extensions_v6(self.context.skb.skb) {
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
/// Beside [`TRANSLATED`], the device that the packet leaves by ([`SkbPacket::redirect`]), and whether that is the node's.
const DEVICE_SHIFT: u32 = 32;
const TO_NODE: u64 = 1 << 63;

/// Of translations there is one, of reasons to pass none that matters any more.
#[inline(always)]
fn verdict_number(verdict: Verdict, packet: &SkbPacket) -> u64 {
    match verdict {
        Verdict::Pass(_) => PASSED.into(),
        Verdict::Translated(_) => {
            let to_node = if packet.goes_to_node { TO_NODE } else { 0 };
            u64::from(TRANSLATED) | u64::from(packet.redirect) << DEVICE_SHIFT | to_node
        }
        Verdict::Drop(reason) => (DROPPED + reason as u32).into(),
    }
}

#[inline(always)]
fn verdict(number: u64, translation: Translation, packet: &mut SkbPacket) -> Verdict {
    match number as u32 {
        PASSED => Verdict::Pass(PassReason::NotOurs),
        TRANSLATED => {
            packet.goes_to_node = number & TO_NODE != 0;
            packet.redirect = ((number & !TO_NODE) >> DEVICE_SHIFT) as u32;
            Verdict::Translated(translation)
        }
        number => Verdict::Drop(DropReason::from_number(number - DROPPED)),
    }
}

macro_rules! subprograms {
    ($family:ident:
     { $($method:ident is $global:ident, $path:expr;)* }
     without the packet: { $($blind_method:ident is $blind_global:ident, $blind_path:expr;)* }
     with a verdict: { $($whole_method:ident is $whole_global:ident, $whole_path:expr, $translation:ident;)* }
     $memory:ident) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $global(skb: *mut __sk_buff) -> u32 {
                let Some(mut memory) = memory() else {
                    return DONE;
                };
                // An argument that is not used is not passed, and the verifier wants it.
                let mut packet = SkbPacket::new(TcContext::new(black_box(skb)));
                number($path(&mut Context {
                    packet: &mut packet,
                    scratch: memory.$memory(),
                    env: &mut Kernel,
                }))
            }
        )*
        // An argument that is not used would not be passed, and the verifier refuses such calls: these have none.
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $blind_global() -> u32 {
                let Some(mut memory) = memory() else {
                    return DONE;
                };
                number($blind_path(&mut memory.$memory(), &mut Kernel))
            }
        )*
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $whole_global(skb: *mut __sk_buff, at: u32) -> u64 {
                let Some(mut memory) = memory() else {
                    return PASSED.into();
                };
                let mut packet = SkbPacket::new(TcContext::new(skb));
                let mut context = Context {
                    packet: &mut packet,
                    scratch: memory.$memory(),
                    env: &mut Kernel,
                };
                let verdict = $whole_path(&mut context, hook(at));
                verdict_number(verdict, &packet)
            }
        )*
        impl Steps<$family> for SkbPacket {
            $(
                #[inline(always)]
                fn $method<E: Environment<$family>>(
                    cx: &mut Context<'_, $family, Self, E>,
                ) -> Result<(), DropReason> {
                    result($global(cx.packet.context.skb.skb))
                }
            )*
            $(
                #[inline(always)]
                fn $blind_method<E: Environment<$family>>(
                    _cx: &mut Context<'_, $family, Self, E>,
                ) -> Result<(), DropReason> {
                    result($blind_global())
                }
            )*
            $(
                #[inline(always)]
                fn $whole_method<E: Environment<$family>>(
                    cx: &mut Context<'_, $family, Self, E>,
                    hook: Hook,
                ) -> Verdict {
                    let number = $whole_global(cx.packet.context.skb.skb, hook_number(hook));
                    verdict(number, Translation::$translation, cx.packet)
                }
            )*
        }
    };
}
subprograms!(V4:
    {
    choose is choose_v4, opening::choose;
    advance_request is advance_request_v4, request::advance;
    advance_reply is advance_reply_v4, reply::advance;
    select_address is select_address_v4, service::masquerade::select_address;
    find_port is find_port_v4, masquerade::find_port;
    take_port is take_port_v4, masquerade::take_port;
    make_way is make_way_v4, masquerade::make_way;
    note_fragment is note_fragment_v4, fragments::note;
    }
    without the packet: {
    reserve is reserve_v4, opening::reserve;
    remember is remember_v4, opening::remember;
    follow is follow_v4, frontends::follow;
    note_question is note_question_v4, unserved::note_question;
    forget is forget_v4, request::forget;
    }
    with a verdict: {
    portless is icmp_v4, icmp::message, IcmpError;
    later_fragment is later_fragment_v4, fragments::later, LaterFragment;
    }
    v4
);
subprograms!(V6:
    {
    choose is choose_v6, opening::choose;
    advance_request is advance_request_v6, request::advance;
    advance_reply is advance_reply_v6, reply::advance;
    select_address is select_address_v6, service::masquerade::select_address;
    find_port is find_port_v6, masquerade::find_port;
    take_port is take_port_v6, masquerade::take_port;
    make_way is make_way_v6, masquerade::make_way;
    note_fragment is note_fragment_v6, fragments::note;
    }
    without the packet: {
    reserve is reserve_v6, opening::reserve;
    remember is remember_v6, opening::remember;
    follow is follow_v6, frontends::follow;
    note_question is note_question_v6, unserved::note_question;
    forget is forget_v6, request::forget;
    }
    with a verdict: {
    portless is icmp_v6, icmp::message, IcmpError;
    later_fragment is later_fragment_v6, fragments::later, LaterFragment;
    }
    v6
);
