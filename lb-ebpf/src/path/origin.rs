//! Where a packet comes from: a pod of the cluster, or a port of a bridge behind which its backend is as well.
use lb_common::{DeviceFlags, DropReason, FlowFlags, Tuple};

use crate::{
    bytes::{
        headers::{EthernetHeader, Wire},
        packet::{Forwarding, NOWHERE, OnBridge, Packet},
        parse::Link,
    },
    context::environment::Environment,
};

/// Whether a packet comes from a pod of the cluster, as its source or the device it entered by tells.
#[inline(always)]
pub(crate) fn is_from_pod<F, P, E>(packet: &P, env: &E, key: &Tuple<F>) -> bool
where
    F: Wire,
    P: Packet + ?Sized,
    E: Environment<F>,
{
    env.networks()
        .is_some_and(|networks| networks.pods.contains(&key.source))
        || is_at(packet, env, DeviceFlags::PODS)
}

/// Whether the device at whose hook the packet is has these flags.
#[inline(always)]
pub(super) fn is_at<F, P, E>(packet: &P, env: &E, flags: DeviceFlags) -> bool
where
    F: Wire,
    P: Packet + ?Sized,
    E: Environment<F>,
{
    Environment::<F>::device(env, packet.interface()).is_some_and(|device| device.flags.has(flags))
}

/// Whether the packet entered in a frame that is not for this node: a switch floods it, or a device is promiscuous. The kernel
/// drops such a frame before it looks at the addresses (`ip_rcv_core`), or a bridge forwards it. At a port of a bridge,
/// frames with the bridge's address are for this node.
#[inline(always)]
pub(super) fn is_foreign<F, P, E>(packet: &P, env: &E, link: Link) -> bool
where
    F: Wire,
    P: Packet + ?Sized,
    E: Environment<F>,
{
    if link != Link::Ethernet || !packet.is_for_another_machine() {
        return false;
    }
    let device = Environment::<F>::device(env, packet.interface());
    let bridge = device.filter(|device| device.bridge != 0);
    let ethernet = packet.header::<EthernetHeader>(0);
    bridge.is_none_or(|it| ethernet.is_none_or(|frame| frame.destination != it.bridge_address))
}

/// Sends a translated packet that entered on the way of its own that its flow has ([`FlowFlags::BRIDGED`]): to a neighbour
/// behind the bridge that it entered by, or past the kernel's routing, which refuses packets from the node's own addresses.
///
/// # Errors
/// Bytes have changed before, and the packet must not go on.
#[inline(always)]
pub fn lead<F, P, E>(
    packet: &mut P,
    link: Link,
    env: &E,
    flags: FlowFlags,
    source: F::Address,
    destination: F::Address,
) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet + Forwarding<F>,
    E: Environment<F>,
{
    if !flags.has(FlowFlags::NODE) {
        return bridge(packet, link, env, source, destination);
    }
    if flags.has(FlowFlags::REQUEST)
        && let Some(device) = packet.next_device(source, destination)
    {
        // If an endpoint has the address of a Service, the route to the backend leads here again.
        let next = Environment::<F>::device(env, device);
        let is_loop = next.is_some_and(|it| it.flags.has(DeviceFlags::NODE_OUTER));
        packet.redirect(if is_loop { NOWHERE } else { device });
        return Ok(());
    }
    // An answer, or a request whose backend is a process of the node.
    let device = Environment::<F>::device(env, packet.interface());
    packet.redirect_to_node(device.map_or(0, |device| device.node_device));
    Ok(())
}

/// Sends a packet for a backend behind the bridge that it entered by to that neighbour. An error means that bytes have
/// changed before: the packet must not go on.
#[inline(always)]
fn bridge<F, P, E>(
    packet: &mut P,
    link: Link,
    env: &E,
    source: F::Address,
    backend: F::Address,
) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet + Forwarding<F>,
    E: Environment<F>,
{
    if link == Link::Ethernet
        && let OnBridge::At(neighbour) = on_bridge(packet, env, source, backend)
    {
        packet
            .header_mut::<EthernetHeader>(0)
            .ok_or(DropReason::HalfRewritten)?
            .destination = neighbour.0;
    }
    Ok(())
}

/// Whether the packet entered by a port of a bridge behind which the backend is as well. Then it must be bridged, not
/// routed: the reply will be, and host conntrack must see both directions or neither.
#[inline(always)]
pub(crate) fn on_bridge<F, P, E>(
    packet: &mut P,
    env: &E,
    source: F::Address,
    backend: F::Address,
) -> OnBridge
where
    F: Wire,
    P: Packet + Forwarding<F> + ?Sized,
    E: Environment<F>,
{
    let bridge =
        Environment::<F>::device(env, packet.interface()).map_or(0, |device| device.bridge);
    if bridge == 0 {
        return OnBridge::No;
    }
    packet.on_bridge(bridge, source, backend)
}
