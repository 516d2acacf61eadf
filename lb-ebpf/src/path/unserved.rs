//! Packets that belong to no flow and are for no frontend.
//!
//! The prefixes that Services get their addresses from can be wider than what the cluster uses (kubeadm's default ends at
//! 10.111.255.255): machines outside can have addresses within. So of packets to an address that no Service has only those
//! that begin a conversation are dropped, as kube-proxy drops them (`ct state new` in its nftables mode). TCP and SCTP
//! say so themselves. For UDP it is noted who was asked: a datagram from such an address leaves an entry in
//! `OPENING_FLOWS` that says that its answer is awaited.
use lb_common::{BackendEntry, BackendState, DropReason, FlowFlags, PassReason, Tuple, Verdict};

use crate::{
    bytes::{headers::Wire, parse::Link, parsed::Parsed},
    context::{
        Context,
        environment::{Environment, FlowHandle as _, FlowTable},
        scratch::FamilyMemory,
    },
    flow::{backend::Selected, find::find, make},
    path::{icmp_quote::Icmp, origin::is_foreign, steps::Steps},
    service::frontends::{NO_SERVICE, refusal},
};

/// What becomes of the packet.
#[inline(always)]
pub(super) fn unserved<F, P, E>(cx: &mut Context<'_, F, P, E>, link: Link) -> Verdict
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let parsed = cx.scratch.parsed();
    match refusal(cx.env, parsed.tuple.destination) {
        None => {
            let source = parsed.tuple.source;
            if parsed.is_udp()
                && refusal(cx.env, source) == Some(DropReason::NoSuchService)
                && !is_foreign(cx.packet, cx.env, link)
            {
                let _no_room = P::note_question(cx);
            }
        }
        Some(DropReason::NoSuchService) if is_answer(cx.env, parsed) => {}
        Some(_) if is_foreign(cx.packet, cx.env, link) => {}
        Some(reason) => return Verdict::Drop(reason),
    }
    Verdict::Pass(PassReason::NotOurs)
}

/// Whether the packet does not begin a conversation.
#[inline(always)]
fn is_answer<F: Wire, E: Environment<F>>(env: &E, parsed: &Parsed<F>) -> bool {
    if !parsed.is_udp() {
        return !parsed.tcp_flags.opens();
    }
    // Of a question that was noted, or of a flow that is translated where it leaves.
    match env.flow(FlowTable::Opening, &parsed.tuple.awaited()) {
        Some(question) => {
            let (noted, now) = (question.entry(), env.now());
            if !noted.flags.has(FlowFlags::REPLIED) {
                question.set_flags(noted.flags.with(FlowFlags::REPLIED));
            }
            if now.is_after(noted.last_seen, 1) {
                question.set_last_seen(now.jiffies);
            }
            true
        }
        None => find(env, &parsed.tuple.leaving()).is_some(),
    }
}

/// Notes that the packet may be answered. The note is kept like a UDP flow: it lasts longer once it was answered.
///
/// # Errors
/// If the kernel refuses to store it: the answer will be dropped.
#[inline(always)]
pub fn note_question<F: Wire, E: Environment<F>>(
    scratch: &mut FamilyMemory<'_, F>,
    env: &mut E,
) -> Result<(), DropReason> {
    let now = env.now();
    let (parsed, entries) = scratch.parts();
    let answer: Tuple<F> = parsed.tuple.reversed().awaited();
    if let Some(noted) = env.flow(FlowTable::Opening, &answer) {
        if now.is_after(noted.entry().last_seen, 1) {
            noted.set_last_seen(now.jiffies);
        }
        return Ok(());
    }
    let (address, port) = (answer.source, answer.source_port);
    let asked = Selected {
        id: 0,
        backend: BackendEntry::new(address, port, BackendState::Active, 0, NO_SERVICE),
    };
    make::make_request(&asked, FlowFlags::NONE, &mut entries.own, now);
    env.insert_flow(FlowTable::Opening, &answer, &entries.own)
        .map_err(|_full| DropReason::FlowNotStored)
}
