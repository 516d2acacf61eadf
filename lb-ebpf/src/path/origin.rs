//! Where a packet comes from: a pod of the cluster, or a port of a bridge behind which its backend is as well.
use lb_common::{DeviceFlags, DropReason, Tuple};

use crate::{
    bytes::{
        headers::{EthernetHeader, Wire},
        packet::{Forwarding, OnBridge, Packet},
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
        || Environment::<F>::device(env, packet.interface())
            .is_some_and(|device| device.flags.has(DeviceFlags::PODS))
}

/// Sends a packet for a backend behind the bridge that it entered by to that neighbour. An error means that bytes have
/// changed before: the packet must not go on.
#[inline(always)]
pub fn bridge<F, P, E>(
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
