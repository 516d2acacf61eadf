//! Flows, packets of theirs that may be quoted, and errors about them.
use std::net::SocketAddr;

use lb_common::{DeviceEntry, Translation, Verdict};
use lb_ebpf::bytes::parse::Link;
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{ICMP_V4, ICMP_V6, SCTP, TCP, UDP},
    packets::packet_builder::{PacketBuilder, eth, ip},
};

use crate::fixture::{REQUEST, at, backend, client, frontend, node, request, service};

pub(crate) const ERROR: Verdict = Verdict::Translated(Translation::IcmpError);
pub(crate) const FAMILIES: [bool; 2] = [false, true];
/// The transport header's part that every error quotes.
pub(crate) const LEAST: usize = 8;

/// A router that belongs to nobody.
pub(crate) fn router(is_v6: bool) -> SocketAddr {
    at(if is_v6 {
        "[fd00:99::1]:0"
    } else {
        "10.99.0.1:0"
    })
}
/// The node's address that hides clients.
pub(crate) fn masquerade(is_v6: bool, port: u16) -> SocketAddr {
    let address = at(if is_v6 { "[fd00:1::1]:0" } else { "10.1.0.1:0" });
    SocketAddr::new(address.ip(), port)
}
/// Errors: what they are, type, code, and the word behind.
pub(crate) fn kinds(is_v6: bool) -> Vec<(&'static str, u8, u8, [u8; 4])> {
    if is_v6 {
        vec![
            ("port unreachable", 1, 4, [0; 4]),
            ("packet too big", 2, 0, 1300u32.to_be_bytes()),
            ("hop limit exceeded", 3, 0, [0; 4]),
            ("parameter problem", 4, 1, 6u32.to_be_bytes()),
        ]
    } else {
        vec![
            ("port unreachable", 3, 3, [0; 4]),
            ("fragmentation needed", 3, 4, [0, 0, 5, 20]),
            ("time exceeded", 11, 0, [0; 4]),
            ("parameter problem", 12, 0, [20, 0, 0, 0]),
        ]
    }
}

/// A quoted packet: its look and how much of it is quoted.
pub(crate) struct Quoted {
    pub(crate) look: PacketBuilder,
    pub(crate) bytes: Option<usize>,
}
impl Quoted {
    /// As it was on its way from one end to the other.
    pub(crate) fn between(&self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut bytes = self.look.clone().readdressed(source, destination).build();
        bytes.truncate(self.bytes.unwrap_or(usize::MAX));
        bytes
    }
}

/// What may be quoted, and how much of it.
pub(crate) fn quotes(is_v6: bool, protocol: u8) -> Vec<(&'static str, Quoted)> {
    let plain = || ip().between(protocol, client(is_v6), frontend(is_v6));
    let data = || plain().payload(b"some data and more data!");
    let header = if is_v6 { 40 } else { 20 };
    let of = |look: PacketBuilder, bytes| Quoted { look, bytes };
    let mut quotes = vec![
        ("all of it", of(data(), None)),
        ("the least there is", of(data(), Some(header + LEAST))),
        ("up to the TCP checksum", of(data(), Some(header + 16))),
        ("with the TCP checksum", of(data(), Some(header + 18))),
        ("with the SCTP checksum", of(data(), Some(header + 12))),
        ("no data", of(plain(), None)),
    ];
    let mut pieces = Vec::new();
    if is_v6 {
        let extended = data().extension(0, 8).extension(60, 24);
        quotes.push(("extension headers", of(extended.clone(), None)));
        quotes.push((
            "extension headers and the least",
            of(extended, Some(40 + 32 + LEAST)),
        ));
        pieces.push(data().fragment_extension(0, true));
    } else {
        let options = data().options(&[1; 12]);
        quotes.push(("options", of(options.clone(), None)));
        quotes.push(("options and the least", of(options, Some(32 + LEAST))));
        pieces.push(data().fragment(0, true));
    }
    // The sum of a part of an SCTP packet tells nothing.
    let pieces = pieces.into_iter().filter(|_| protocol != SCTP);
    quotes.extend(pieces.map(|piece| ("a first fragment", of(piece, None))));
    if protocol == UDP && !is_v6 {
        quotes.push(("no UDP checksum", of(data().without_checksum(), None)));
    }
    quotes
}

/// An error from one address to another about a packet.
pub(crate) fn error(
    kind: (u8, u8, [u8; 4]),
    from: SocketAddr,
    to: SocketAddr,
    quoted: &[u8],
) -> PacketBuilder {
    let protocol = if from.is_ipv4() { ICMP_V4 } else { ICMP_V6 };
    eth()
        .between(protocol, from, to)
        .icmp(kind.0, kind.1, kind.2)
        .payload(quoted)
}

/// A node with an open flow, whose client is masqueraded if that is asked for; and the flow's four ends.
pub(crate) struct Flow {
    pub(crate) node: HostDatapath,
    pub(crate) client: SocketAddr,
    pub(crate) frontend: SocketAddr,
    pub(crate) backend: SocketAddr,
    /// The client as the host's stack knows it: a rival for its port may have left it another.
    pub(crate) routed: SocketAddr,
    /// The client as the backend knows it.
    pub(crate) shown: SocketAddr,
}

pub(crate) fn flow(is_v6: bool, protocol: u8, is_masqueraded: bool, has_rival: bool) -> Flow {
    let mut node = node();
    if is_masqueraded {
        let device = DeviceEntry {
            masquerade_v4: [10, 1, 0, 1].into(),
            masquerade_v6: [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into(),
            ..DeviceEntry::default()
        };
        node.tables.devices.insert(1, device);
        let flags = lb_common::FrontendFlags::MASQUERADE;
        for entry in node.tables.v4.frontends.values_mut() {
            entry.flags = flags;
        }
        for entry in node.tables.v6.frontends.values_mut() {
            entry.flags = flags;
        }
    }
    if has_rival {
        let rival = SocketAddr::new(frontend(is_v6).ip(), 81);
        node.frontend(service(is_v6, protocol), protocol, rival);
        let packet = eth().between(protocol, client(is_v6), rival).syn();
        assert_eq!(node.enter(&packet.build()).0, REQUEST);
    }
    let (verdict, packet) = node.enter(&request(eth(), is_v6, protocol).build());
    assert_eq!(verdict, REQUEST);
    let ends = tests::packets::dissect::dissect(&packet, Link::Ethernet).expect("a packet");
    let routed = ends.source;
    assert_eq!(routed != client(is_v6), has_rival);
    let mut shown = routed;
    let (verdict, sent) = node.leave(&packet);
    if is_masqueraded {
        assert_eq!(
            verdict,
            Verdict::Translated(Translation::MasqueradedRequest)
        );
        let sent = tests::packets::dissect::dissect(&sent, Link::Ethernet).expect("a packet");
        shown = masquerade(is_v6, sent.source.port());
        assert_eq!(sent.source, shown);
    }
    Flow {
        node,
        client: client(is_v6),
        frontend: frontend(is_v6),
        backend: backend(is_v6),
        routed,
        shown,
    }
}

/// Every error about every quoted packet of flows with and without a masquerade.
pub(crate) fn for_all(mut test: impl FnMut(Flow, (u8, u8, [u8; 4]), &Quoted, &str)) {
    for is_v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            for (is_masqueraded, has_rival) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                for (name, kind, code, rest) in kinds(is_v6) {
                    for (look, quoted) in quotes(is_v6, protocol) {
                        let what = format!(
                            "{name} about protocol {protocol}, {look}, IPv6: {is_v6}, masquerade: {is_masqueraded}, rival: {has_rival}"
                        );
                        let flow = flow(is_v6, protocol, is_masqueraded, has_rival);
                        test(flow, (kind, code, rest), &quoted, &what);
                    }
                }
            }
        }
    }
}

/// Takes an error through the node and says what comes out.
pub(crate) fn through(
    node: &mut HostDatapath,
    bytes: &[u8],
) -> (Verdict, Vec<u8>, Verdict, Vec<u8>) {
    let (entered, routed) = node.enter(bytes);
    let (left, sent) = node.leave(&routed);
    (entered, routed, left, sent)
}
