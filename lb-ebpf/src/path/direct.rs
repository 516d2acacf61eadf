//! Connections that clients open to a backend's own address: direct flows.
//!
//! Linux assigns one local port to connections with several destinations. A client can have a connection to a Service and
//! one to the pod that the Service selected from the same port, and the replies of both have the same tuple. Therefore a
//! direct connection to a backend is a flow as well. The later of two flows gets another source port
//! ([`crate::flow::claim`]), as in the kernel's connection tracking (`nf_nat_core.c`, `get_unique_tuple`). Packets of a
//! direct flow that keeps its port pass unchanged.
//!
//! Direct flows are tracked at the lowest device that their packets pass. At a bridge, or at a VLAN device, a packet with
//! the same addresses can belong to a Service's flow that was translated at the device below.
use lb_common::{
    BackendEntry, BackendState, DeviceFlags, DropReason, FlowEntry, FlowFlags, FrontendFlags, Port,
};

use crate::{
    bytes::{
        headers::{TcpFlags, Wire},
        packet::Packet,
        parsed::Parsed,
    },
    context::{
        Context,
        environment::{Environment, FlowHandle as _, FlowTable},
    },
    flow::{backend::Selected, make},
    path::{
        icmp_quote::Icmp,
        origin::{is_at, is_from_pod},
        steps::Steps,
    },
    service::frontends::NO_SERVICE,
};

/// Whether the flow of this entry is tracked at a device below. The packet may belong to another flow here.
#[inline(always)]
pub(super) fn is_tracked_below<F, P, E>(packet: &P, env: &E, entry: &FlowEntry<F>) -> bool
where
    F: Wire,
    P: Packet + ?Sized,
    E: Environment<F>,
{
    entry.is_direct() && is_at(packet, env, DeviceFlags::UPPER)
}

/// Whether packets of this entry's flow pass unchanged.
#[inline(always)]
pub(super) fn keeps_port<F: Wire>(entry: &FlowEntry<F>) -> bool {
    entry.is_direct() && entry.other_port == Port::ZERO
}

/// Whether a packet to a frontend with these flags opens a direct flow if no flow has its tuple. Packets that end a
/// connection open none.
#[inline(always)]
pub(super) fn opens<F, P, E>(packet: &P, parsed: &Parsed<F>, env: &E, flags: FrontendFlags) -> bool
where
    F: Wire,
    P: Packet + ?Sized,
    E: Environment<F>,
{
    let closing = TcpFlags::FIN.0 | TcpFlags::RST.0;
    flags.has(FrontendFlags::DIRECT)
        && !parsed.is_part_of_sctp()
        && (parsed.is_udp() || parsed.tcp_flags.0 & closing == 0)
        && (flags.has(FrontendFlags::DIRECT_FROM_OUTSIDE)
            // Without a prefix of pods every client may be a pod.
            || env.networks().is_some_and(|it| it.pods.agrees(&parsed.tuple.source))
            || is_from_pod(packet, env, &parsed.tuple))
        && !is_at(packet, env, DeviceFlags::UPPER)
}

/// Opens the flow. Afterwards `entries.own` is its request entry.
///
/// # Errors
/// If the flow tables have no room, or if the connection is older than its tracking and another flow has its reply tuple.
/// The connection is not tracked then, and the packet passes.
#[inline(always)]
pub(super) fn open<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: Icmp,
    P: Steps<F>,
    E: Environment<F>,
{
    let now = cx.env.now();
    let (parsed, entries) = cx.scratch.parts();
    let (address, port) = (parsed.tuple.destination, parsed.tuple.destination_port);
    let selected = Selected {
        id: 0,
        backend: BackendEntry::new(address, port, BackendState::Active, 0, NO_SERVICE),
    };
    make::make_request(&selected, FlowFlags::NONE, &mut entries.own, now);
    entries.has_affinity = 0;
    P::reserve(cx)?;
    let (parsed, entries) = cx.scratch.parts();
    if entries.own.other_port != Port::ZERO {
        // An established connection cannot get another port; one that has another port already has a reply half.
        let is_new = || {
            let reply = cx.env.flow(FlowTable::Opening, &entries.other_key);
            reply.is_some_and(|reply| reply.entry().last_seen == now.jiffies)
        };
        if !parsed.is_udp() && !parsed.tcp_flags.opens() && is_new() {
            cx.env.remove_flow(FlowTable::Opening, &entries.other_key);
            return Err(DropReason::FlowConflict);
        }
        // The flow must be found even if the pod is no backend any more.
        cx.env.mark_unlisted_flow(&parsed.tuple.destination);
    }
    P::remember(cx)
}
