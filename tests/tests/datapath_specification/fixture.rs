//! One service of each family and protocol, one backend each, and packets to it.
use std::net::SocketAddr;

use lb_common::{BackendState, Translation, Verdict};
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{SCTP, TCP, UDP},
    packets::packet_builder::{PacketBuilder, eth},
};

pub(crate) const REQUEST: Verdict = Verdict::Translated(Translation::Request);
pub(crate) const REPLY: Verdict = Verdict::Translated(Translation::Reply);

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
pub(crate) fn client(is_v6: bool) -> SocketAddr {
    at(if is_v6 {
        "[fd00:7::9]:40000"
    } else {
        "10.7.0.9:40000"
    })
}
pub(crate) fn frontend(is_v6: bool) -> SocketAddr {
    at(if is_v6 {
        "[fd00:96::1]:80"
    } else {
        "10.96.0.1:80"
    })
}
pub(crate) fn backend(is_v6: bool) -> SocketAddr {
    at(if is_v6 {
        "[fd00:244::2]:8080"
    } else {
        "10.244.0.2:8080"
    })
}

/// The id of the service of a family and protocol.
pub(crate) fn service(is_v6: bool, protocol: u8) -> u32 {
    match protocol {
        TCP => 1 + 2 * u32::from(is_v6),
        UDP => 2 + 2 * u32::from(is_v6),
        _ => 5 + u32::from(is_v6),
    }
}

/// One service of each family and protocol, one backend each.
pub(crate) fn node() -> HostDatapath {
    let mut node = HostDatapath::default();
    for (is_v6, protocol) in [false, true]
        .into_iter()
        .flat_map(|is_v6| [TCP, UDP, SCTP].map(|it| (is_v6, it)))
    {
        let id = service(is_v6, protocol);
        node.frontend(id, protocol, frontend(is_v6));
        node.backend(id, id, backend(is_v6), BackendState::Active);
        node.candidates(id, &[id]);
    }
    node
}

pub(crate) fn request(builder: PacketBuilder, is_v6: bool, protocol: u8) -> PacketBuilder {
    let packet = builder.between(protocol, client(is_v6), frontend(is_v6));
    packet.syn().payload(b"payload")
}

/// All looks of a packet that make no difference.
pub(crate) fn looks() -> Vec<(&'static str, bool, PacketBuilder)> {
    let plain = |is_v6, protocol| request(eth(), is_v6, protocol);
    vec![
        ("TCP over IPv4", false, plain(false, TCP)),
        ("UDP over IPv4", false, plain(false, UDP)),
        ("TCP over IPv6", true, plain(true, TCP)),
        ("UDP over IPv6", true, plain(true, UDP)),
        ("no data", false, plain(false, TCP).payload(b"")),
        (
            "TCP options",
            false,
            plain(false, TCP).tcp_options(&[2, 4, 5, 0xb4]),
        ),
        (
            "one word of IPv4 options",
            false,
            plain(false, TCP).options(&[1; 4]),
        ),
        (
            "all IPv4 options there can be",
            false,
            plain(false, UDP).options(&[1; 40]),
        ),
        ("a VLAN tag", false, request(eth().vlan(5), false, TCP)),
        (
            "two VLAN tags",
            true,
            request(eth().service_vlan(5).vlan(6), true, UDP),
        ),
        (
            "Ethernet padding",
            false,
            plain(false, TCP).payload(b"").padding(6),
        ),
        (
            "UDP without a checksum",
            false,
            plain(false, UDP).without_checksum(),
        ),
        ("hop-by-hop options", true, plain(true, TCP).extension(0, 8)),
        ("a routing header", true, plain(true, TCP).extension(43, 24)),
        (
            "destination options",
            true,
            plain(true, UDP).extension(60, 264),
        ),
        (
            "a mobility header",
            true,
            plain(true, TCP).extension(135, 8),
        ),
        (
            "an authentication header",
            true,
            plain(true, TCP).extension(51, 24),
        ),
        (
            "an atomic fragment",
            true,
            plain(true, UDP).fragment_extension(0, false),
        ),
        (
            "six extension headers",
            true,
            [0, 60, 43, 51, 135, 60]
                .into_iter()
                .fold(plain(true, TCP), |packet, kind| packet.extension(kind, 8)),
        ),
    ]
}

pub(crate) fn rebuilt(
    packet: &PacketBuilder,
    source: SocketAddr,
    destination: SocketAddr,
) -> Vec<u8> {
    packet.clone().readdressed(source, destination).build()
}
