//! Where a packet comes from: a pod of the cluster, or a port of a bridge behind which its backend is as well.
use lb_common::{DeviceFlags, DropReason, Tuple};

use crate::{
    bytes::{
        headers::{EthernetHeader, Wire},
        packet::{Forwarding, OnBridge, Packet},
        parse::Link,
    },
    context::tables::Tables,
};

/// Whether a packet comes from a pod of the cluster, as its source or the device it entered by tells.
#[inline(always)]
pub(crate) fn is_from_pod<F, P, T>(packet: &P, tables: &T, key: &Tuple<F>) -> bool
where
    F: Wire,
    P: Packet + ?Sized,
    T: Tables<F>,
{
    tables
        .networks()
        .is_some_and(|networks| networks.pods.contains(&key.source))
        || Tables::<F>::device(tables, packet.interface())
            .is_some_and(|device| device.flags.has(DeviceFlags::PODS))
}

/// Sends a packet for a backend behind the bridge that it entered by to that neighbour. An error means that bytes have
/// changed before: the packet must not go on.
#[inline(always)]
pub fn bridge<F, P, T>(
    packet: &mut P,
    link: Link,
    tables: &T,
    source: F::Address,
    backend: F::Address,
) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet + Forwarding<F>,
    T: Tables<F>,
{
    if link == Link::Ethernet
        && let OnBridge::At(neighbour) = on_bridge(packet, tables, source, backend)
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
pub(crate) fn on_bridge<F, P, T>(
    packet: &mut P,
    tables: &T,
    source: F::Address,
    backend: F::Address,
) -> OnBridge
where
    F: Wire,
    P: Packet + Forwarding<F> + ?Sized,
    T: Tables<F>,
{
    let bridge = Tables::<F>::device(tables, packet.interface()).map_or(0, |device| device.bridge);
    if bridge == 0 {
        return OnBridge::No;
    }
    packet.on_bridge(bridge, source, backend)
}
