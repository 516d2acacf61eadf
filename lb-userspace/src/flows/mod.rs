//! The flows that the kernel remembers: reading them, ageing them, and ending sockets whose backend is gone.
pub mod affinity;
pub mod sockets;
pub mod strays;
pub mod sweep;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use lb_common::{FlowEntry, FlowFlags, FlowSide, IpFamily, Protocol, Tuple, V4, V6};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{bpf::batch, datapath::node::kernel, model::Family};

/// The tables of flows, in the order in which they must be read: a flow moves from `OPENING_FLOWS` to FLOWS, never
/// back, so that one that moves meanwhile is met in at least one of them.
const TABLES: [(&str, bool); 2] = [("OPENING_FLOWS", false), ("FLOWS", true)];

/// One entry of a flow, for people: how packets of one direction are rewritten at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowView {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// As the packet comes.
    pub source: SocketAddr,
    /// As the packet comes.
    pub destination: SocketAddr,
    /// `destination` on ingress, `source` on egress.
    pub rewrites: String,
    /// What that side becomes.
    pub becomes: SocketAddr,
    /// What the port of the other side becomes, where another flow of the client has the replies to its own port.
    pub other_port: Option<u16>,
    /// What has been seen: `request`, `replied`, `fin`, `rst`, `masquerade`, `bridged`.
    pub flags: Vec<String>,
    /// Whether it has proven itself and stands in FLOWS.
    pub proven: bool,
    /// Id of its service.
    pub service_id: u32,
    /// Id of its backend.
    pub backend_id: u32,
    /// Seconds since its last packet, exact to a second or two.
    pub idle_seconds: u32,
}

/// Every entry of the flow tables pinned in this folder, in order.
pub fn read(maps: &Path) -> io::Result<Vec<FlowView>> {
    let per_second = kernel::jiffies_per_second()?;
    let now = jiffies(per_second)?;
    let mut flows = Vec::new();
    for (table, proven) in TABLES {
        let path = maps.join(format!("{table}_V4"));
        batch::read::<Tuple<V4>, FlowEntry<V4>>(&path, |key, entry| {
            flows.extend(view(key, entry, proven, now, per_second));
        })?;
        let path = maps.join(format!("{table}_V6"));
        batch::read::<Tuple<V6>, FlowEntry<V6>>(&path, |key, entry| {
            flows.extend(view(key, entry, proven, now, per_second));
        })?;
    }
    flows.sort();
    Ok(flows)
}

/// Calls `take` with the backend of every flow entry: family, id and generation.
pub fn backends_in_use(maps: &Path, mut take: impl FnMut(Family, u32, u32)) -> io::Result<()> {
    for (table, _) in TABLES {
        let path = maps.join(format!("{table}_V4"));
        batch::read::<Tuple<V4>, FlowEntry<V4>>(&path, |_, entry| {
            take(Family::V4, entry.backend_id, entry.generation);
        })?;
        let path = maps.join(format!("{table}_V6"));
        batch::read::<Tuple<V6>, FlowEntry<V6>>(&path, |_, entry| {
            take(Family::V6, entry.backend_id, entry.generation);
        })?;
    }
    Ok(())
}

/// What an entry shows; `None` if it belongs to no flow.
fn view<F: IpFamily>(
    key: &Tuple<F>,
    entry: &FlowEntry<F>,
    proven: bool,
    now: u32,
    per_second: u32,
) -> Option<FlowView>
where
    F::Address: Into<IpAddr>,
{
    if key.is_awaited() {
        return None;
    }
    let names = [
        (FlowFlags::REQUEST, "request"),
        (FlowFlags::REPLIED, "replied"),
        (FlowFlags::FIN, "fin"),
        (FlowFlags::RST, "rst"),
        (FlowFlags::MASQUERADE, "masquerade"),
        (FlowFlags::BRIDGED, "bridged"),
    ];
    let side = if entry.side == FlowSide::Destination.byte() {
        "destination"
    } else {
        "source"
    };
    Some(FlowView {
        protocol: Protocol::from_number(key.protocol_number()).map_or_else(
            || key.protocol_number().to_string(),
            |protocol| protocol.to_string(),
        ),
        source: SocketAddr::new(key.source.into(), key.source_port.number()),
        destination: SocketAddr::new(key.destination.into(), key.destination_port.number()),
        rewrites: side.to_owned(),
        becomes: SocketAddr::new(entry.address.into(), entry.port.number()),
        other_port: Some(entry.other_port.number()).filter(|port| *port != 0),
        flags: names
            .iter()
            .filter(|(flag, _)| entry.flags.has(*flag))
            .map(|(_, name)| (*name).to_owned())
            .collect(),
        proven,
        service_id: entry.service_id,
        backend_id: entry.backend_id,
        // A packet of this very moment may be a tick ahead of the clock read here.
        idle_seconds: u32::try_from(now.wrapping_sub(entry.last_seen).cast_signed())
            .unwrap_or_default()
            / per_second.max(1),
    })
}

/// The low 32 bits of the kernel's jiffies, as the kernel programs write them, to a second or two.
///
/// The kernel tells them nowhere directly: they are the monotonic time in ticks, counted from five minutes before 32
/// bits overflow (`INITIAL_JIFFIES` in linux/jiffies.h).
fn jiffies(per_second: u32) -> io::Result<u32> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let seconds = u32::try_from(time.tv_sec()).unwrap_or_default();
    let ticks = seconds.wrapping_mul(per_second);
    Ok(ticks.wrapping_sub(300 * per_second))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use lb_common::{Ipv4Address, Port};

    use super::*;

    #[test]
    fn a_request_is_shown_with_its_backend() {
        let key = Tuple::<V4>::new(
            Ipv4Address::from([10, 244, 1, 9]),
            Port::new(40_000),
            Ipv4Address::from([10, 103, 145, 6]),
            Port::new(80),
            6,
        );
        let entry = FlowEntry {
            address: Ipv4Address::from([10, 244, 2, 2]),
            port: Port::new(8080),
            side: FlowSide::Destination.byte(),
            flags: FlowFlags::REQUEST.with(FlowFlags::REPLIED),
            last_seen: 1000,
            ..FlowEntry::zeroed()
        };
        let view = |key: Tuple<V4>, entry, now| view(&key, &entry, true, now, 250);
        assert_eq!(view(key.awaited(), entry, 1000), None);
        let shown = view(key, entry, 1000 + 250 * 7).unwrap();
        assert_eq!(shown.becomes, "10.244.2.2:8080".parse().unwrap());
        assert_eq!(shown.flags, ["request", "replied"]);
        assert_eq!(
            (shown.rewrites.as_str(), shown.idle_seconds),
            ("destination", 7)
        );
        assert_eq!(shown.other_port, None);
        let entry = FlowEntry {
            other_port: Port::new(61_234),
            ..entry
        };
        let shown = view(key, entry, 999).unwrap();
        assert_eq!((shown.other_port, shown.idle_seconds), (Some(61_234), 0));
    }
}
