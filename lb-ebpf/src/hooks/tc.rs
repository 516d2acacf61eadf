//! TC: one program for each direction and framing. What is not ours and what is translated go on to the next program
//! (`TC_ACT_UNSPEC`, never `TC_ACT_OK`), so that others' programs run.
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_redirect, bpf_redirect_neigh},
    macros::classifier,
    programs::TcContext,
};
use lb_common::{FlowSide, Verdict};
use lb_ebpf::{
    bytes::{packet::Packet as _, parse::Link},
    context::{
        Hook,
        scratch::{Memory, Scratch},
    },
    path::pipeline,
};

use super::{environment::Kernel, maps::SCRATCH, report::Reporter, skb_packet::SkbPacket};

/// Packets that enter by a device with Ethernet framing.
#[classifier]
#[inline(always)]
pub fn tc_ingress_ethernet(ctx: TcContext) -> i32 {
    ingress(ctx, Link::Ethernet)
}

/// Packets that leave by a device with Ethernet framing.
#[classifier]
#[inline(always)]
pub fn tc_egress_ethernet(ctx: TcContext) -> i32 {
    egress(ctx, Link::Ethernet)
}

/// Packets that enter by a device whose packets start at the IP header.
#[classifier]
#[inline(always)]
pub fn tc_ingress_ip(ctx: TcContext) -> i32 {
    ingress(ctx, Link::Ip)
}

/// Packets that leave by a device whose packets start at the IP header.
#[classifier]
#[inline(always)]
pub fn tc_egress_ip(ctx: TcContext) -> i32 {
    egress(ctx, Link::Ip)
}

#[inline(always)]
fn ingress(context: TcContext, link: Link) -> i32 {
    run(
        context,
        Hook {
            side: FlowSide::Destination,
            link,
        },
    )
}

#[inline(always)]
fn egress(context: TcContext, link: Link) -> i32 {
    run(
        context,
        Hook {
            side: FlowSide::Source,
            link,
        },
    )
}

#[inline(always)]
fn run(context: TcContext, hook: Hook) -> i32 {
    let Some(memory) = memory() else {
        return TC_ACT_UNSPEC;
    };
    let (mut packet, mut reporter) = parts(context);
    let verdict = pipeline::run(&mut packet, hook, memory, &mut Kernel, &mut reporter);
    if packet.redirect == 0 || !matches!(verdict, Verdict::Translated(_)) {
        return action(verdict);
    }
    if packet.goes_to_node {
        return to_node(&mut packet, hook.link);
    }
    // SAFETY: the helper takes numbers; without parameters it looks for the next hop itself.
    unsafe { bpf_redirect_neigh(packet.redirect, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Sends a packet through the node's device pair, in an Ethernet frame for its other end.
#[inline(always)]
fn to_node(packet: &mut SkbPacket, link: Link) -> i32 {
    let device = packet.redirect;
    if packet.make_frame(link).is_none() {
        return TC_ACT_SHOT;
    }
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect(device, 0) as i32 }
}

#[inline(always)]
fn parts(context: TcContext) -> (SkbPacket, Reporter) {
    let skb = context.skb.skb;
    let packet = SkbPacket::new(context);
    let interface = packet.interface();
    (
        packet,
        Reporter {
            interface,
            context: TcContext::new(skb),
        },
    )
}

const _: () = assert!(size_of::<Scratch>() <= size_of::<[u64; 64]>());

/// This CPU's scratch memory, for a program, and again for each of its subprograms.
#[inline(always)]
pub(super) fn memory<'a>() -> Option<Memory<'a>> {
    let scratch = SCRATCH.get_ptr_mut(0)?.cast::<Scratch>();
    // SAFETY: large enough and aligned to 8; all of it is integers, of which any bits are values; the map outlives the
    // program. No other program uses it meanwhile: TC programs of a CPU run one after the other, for ingress is a
    // softirq and egress runs with softirqs off. A subprogram uses it while its caller, which gave it the whole context,
    // waits for it; what it borrows ends when it returns.
    Some(unsafe { Memory::from_pointer(scratch) })
}

/// The one place where a verdict becomes an action.
#[inline(always)]
fn action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass(_) | Verdict::Translated(_) => TC_ACT_UNSPEC,
        Verdict::Drop(_) => TC_ACT_SHOT,
    }
}
