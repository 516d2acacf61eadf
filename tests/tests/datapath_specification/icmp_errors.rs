//! ICMP errors about packets of services: who hears of one finds in it what he has sent. Each is compared byte by byte
//! with the error that the other end would have got without a service in between.
use std::net::SocketAddr;

use lb_common::{Counter, DeviceEntry, DropReason, PassReason, Translation, Verdict};
use lb_ebpf::parse::Link;
use tests::{
    dissect::{ICMP_V4, ICMP_V6, TCP, UDP},
    generate::Hook,
    host_datapath::HostDatapath,
    memory_packet::MemoryPacket,
    packet_builder::{PacketBuilder, eth, ip},
};

use crate::fixture::{REPLY, REQUEST, at, backend, client, frontend, node, request};

const ERROR: Verdict = Verdict::Translated(Translation::IcmpError);
const FAMILIES: [bool; 2] = [false, true];
/// The transport header's part that every error quotes.
const LEAST: usize = 8;

/// A router that belongs to nobody.
fn router(is_v6: bool) -> SocketAddr {
    at(if is_v6 {
        "[fd00:99::1]:0"
    } else {
        "10.99.0.1:0"
    })
}
/// The node's address that hides clients.
fn masquerade(is_v6: bool, port: u16) -> SocketAddr {
    let address = at(if is_v6 { "[fd00:1::1]:0" } else { "10.1.0.1:0" });
    SocketAddr::new(address.ip(), port)
}
/// Errors: what they are, type, code, and the word behind.
fn kinds(is_v6: bool) -> Vec<(&'static str, u8, u8, [u8; 4])> {
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
struct Quoted {
    look: PacketBuilder,
    bytes: Option<usize>,
}
impl Quoted {
    /// As it was on its way from one end to the other.
    fn between(&self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut bytes = self.look.clone().readdressed(source, destination).build();
        bytes.truncate(self.bytes.unwrap_or(usize::MAX));
        bytes
    }
}

/// What may be quoted, and how much of it.
fn quotes(is_v6: bool, protocol: u8) -> Vec<(&'static str, Quoted)> {
    let plain = || ip().between(protocol, client(is_v6), frontend(is_v6));
    let data = || plain().payload(b"some data and more data!");
    let header = if is_v6 { 40 } else { 20 };
    let of = |look: PacketBuilder, bytes| Quoted { look, bytes };
    let mut quotes = vec![
        ("all of it", of(data(), None)),
        ("the least there is", of(data(), Some(header + LEAST))),
        ("up to the TCP checksum", of(data(), Some(header + 16))),
        ("with the TCP checksum", of(data(), Some(header + 18))),
        ("no data", of(plain(), None)),
    ];
    if is_v6 {
        let extended = data().extension(0, 8).extension(60, 24);
        quotes.push(("extension headers", of(extended.clone(), None)));
        quotes.push((
            "extension headers and the least",
            of(extended, Some(40 + 32 + LEAST)),
        ));
        quotes.push((
            "a first fragment",
            of(data().fragment_extension(0, true), None),
        ));
    } else {
        let options = data().options(&[1; 12]);
        quotes.push(("options", of(options.clone(), None)));
        quotes.push(("options and the least", of(options, Some(32 + LEAST))));
        quotes.push(("a first fragment", of(data().fragment(0, true), None)));
    }
    if protocol == UDP && !is_v6 {
        quotes.push(("no UDP checksum", of(data().without_checksum(), None)));
    }
    quotes
}

/// An error from one address to another about a packet.
fn error(
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
struct Flow {
    node: HostDatapath,
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    /// The client as the host's stack knows it: a rival for its port may have left it another.
    routed: SocketAddr,
    /// The client as the backend knows it.
    shown: SocketAddr,
}

fn flow(is_v6: bool, protocol: u8, is_masqueraded: bool, has_rival: bool) -> Flow {
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
        let service = 1 + 2 * u32::from(is_v6) + u32::from(protocol == UDP);
        node.frontend(service, protocol, rival);
        let packet = eth().between(protocol, client(is_v6), rival).syn();
        assert_eq!(node.enter(&packet.build()).0, REQUEST);
    }
    let (verdict, packet) = node.enter(&request(eth(), is_v6, protocol).build());
    assert_eq!(verdict, REQUEST);
    let ends = tests::dissect::dissect(&packet, Link::Ethernet).expect("a packet");
    let routed = ends.source;
    assert_eq!(routed != client(is_v6), has_rival);
    let mut shown = routed;
    let (verdict, sent) = node.leave(&packet);
    if is_masqueraded {
        assert_eq!(
            verdict,
            Verdict::Translated(Translation::MasqueradedRequest)
        );
        let sent = tests::dissect::dissect(&sent, Link::Ethernet).expect("a packet");
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
fn for_all(mut test: impl FnMut(Flow, (u8, u8, [u8; 4]), &Quoted, &str)) {
    for is_v6 in FAMILIES {
        for protocol in [TCP, UDP] {
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
fn through(node: &mut HostDatapath, bytes: &[u8]) -> (Verdict, Vec<u8>, Verdict, Vec<u8>) {
    let (entered, routed) = node.enter(bytes);
    let (left, sent) = node.leave(&routed);
    (entered, routed, left, sent)
}

#[test]
fn the_client_hears_of_its_packets_as_it_sent_them() {
    for_all(|mut flow, kind, quoted, what| {
        let is_v6 = flow.client.is_ipv6();
        // The backend itself sends the error, or a router before it.
        for (from, seen_from) in [
            (flow.backend, flow.frontend),
            (router(is_v6), router(is_v6)),
        ] {
            let about = quoted.between(flow.shown, flow.backend);
            let received = error(kind, from, flow.shown, &about).build();
            let (entered, routed, left, sent) = through(&mut flow.node, &received);
            if flow.shown == flow.routed {
                assert_eq!(entered, Verdict::Pass(PassReason::NotOurs), "{what}");
                assert_eq!(routed, received, "{what}");
            } else {
                assert_eq!(entered, ERROR, "{what}");
                // In between the host's stack sees the flow as if the client had dialled the backend.
                let about = quoted.between(flow.routed, flow.backend);
                let plain = error(kind, from, flow.routed, &about).build();
                assert_eq!(routed, plain, "{what}");
            }
            assert_eq!(left, ERROR, "{what}");
            let about = quoted.between(flow.client, flow.frontend);
            let expected = error(kind, seen_from, flow.client, &about).build();
            assert_eq!(sent, expected, "{what}");
        }
    });
}

#[test]
fn errors_about_a_frontends_answers_reach_the_backend_that_gave_them() {
    for_all(|mut flow, kind, quoted, what| {
        let is_v6 = flow.client.is_ipv6();
        // The client itself sends the error, or a router before it.
        for (from, seen_from) in [(flow.client, flow.shown), (router(is_v6), router(is_v6))] {
            let about = quoted.between(flow.frontend, flow.client);
            let received = error(kind, from, flow.frontend, &about).build();
            let (entered, routed, left, sent) = through(&mut flow.node, &received);
            assert_eq!(entered, ERROR, "{what}");
            let about = quoted.between(flow.backend, flow.routed);
            let plain = error(kind, from, flow.backend, &about).build();
            assert_eq!(routed, plain, "{what}");
            if flow.shown == flow.routed {
                assert_eq!(left, Verdict::Pass(PassReason::NotOurs), "{what}");
            } else {
                assert_eq!(left, ERROR, "{what}");
            }
            let about = quoted.between(flow.backend, flow.shown);
            let expected = error(kind, seen_from, flow.backend, &about).build();
            assert_eq!(sent, expected, "{what}");
        }
    });
}

#[test]
fn an_error_in_pieces_or_with_padding_is_translated_alike() {
    for is_v6 in FAMILIES {
        let (_, kind, code, rest) = kinds(is_v6)[1];
        let flow = || flow(is_v6, TCP, false, false);
        let quoted = Quoted {
            look: ip()
                .between(TCP, client(is_v6), frontend(is_v6))
                .payload(b"data"),
            bytes: Some(if is_v6 { 48 } else { 28 }),
        };
        let about = quoted.between(flow().client, flow().backend);
        let before = error((kind, code, rest), flow().backend, flow().client, &about);
        let about = quoted.between(flow().client, flow().frontend);
        let after = error((kind, code, rest), flow().frontend, flow().client, &about);
        let bytes = before.build();
        for linear in 0..bytes.len() {
            let mut packet = MemoryPacket::new(bytes.clone()).with_linear(linear);
            let verdict = flow().node.pass(Hook::Egress, &mut packet, Link::Ethernet);
            assert_eq!(
                (verdict, &packet.bytes),
                (ERROR, &after.build()),
                "{linear}"
            );
        }
        // What looks like the quoted checksum behind the message's end is none.
        let padded = before.clone().padding(20).build();
        assert_eq!(
            flow().node.leave(&padded),
            (ERROR, after.clone().padding(20).build())
        );
        for length in 0..bytes.len() {
            let (verdict, cut) = flow().node.leave(&bytes[..length]);
            assert!(matches!(verdict, Verdict::Pass(_)), "{length}: {verdict:?}");
            assert_eq!(cut, bytes[..length], "{length}");
        }
        let mut packet = MemoryPacket::new(bytes.clone());
        packet.refuses_checksums = true;
        let verdict = flow().node.pass(Hook::Egress, &mut packet, Link::Ethernet);
        assert_eq!(verdict, Verdict::Drop(DropReason::HalfRewritten));
    }
}

#[test]
fn a_message_that_was_damaged_is_not_put_right() {
    for is_v6 in FAMILIES {
        let Flow {
            mut node,
            client,
            frontend,
            backend,
            ..
        } = flow(is_v6, UDP, false, false);
        let (_, kind, code, rest) = kinds(is_v6)[0];
        let quoted = Quoted {
            look: ip().between(UDP, client, frontend).payload(b"data"),
            bytes: None,
        };
        let damaged = |mut bytes: Vec<u8>| {
            let last = bytes.len() - 1;
            bytes[last] ^= 0x40;
            bytes
        };
        let build = |from, about: Vec<u8>| error((kind, code, rest), from, client, &about).build();
        let before = damaged(build(backend, quoted.between(client, backend)));
        let after = damaged(build(frontend, quoted.between(client, frontend)));
        assert_eq!(node.leave(&before), (ERROR, after));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_is_no_error_about_a_flow_passes_untouched() {
    for is_v6 in FAMILIES {
        let (_, kind, code, rest) = kinds(is_v6)[0];
        let kind = (kind, code, rest);
        let echo = if is_v6 {
            (128, 0, [0; 4])
        } else {
            (8, 0, [0; 4])
        };
        let quench = if is_v6 {
            (5, 0, [0; 4])
        } else {
            (4, 0, [0; 4])
        };
        let (client, frontend, backend) = (client(is_v6), frontend(is_v6), backend(is_v6));
        let packet = |source, destination| {
            let packet = ip().between(TCP, source, destination);
            packet.payload(b"data").build()
        };
        let other = at(if is_v6 {
            "[fd00:244::9]:8080"
        } else {
            "10.244.0.9:8080"
        });
        let other_port = |mut at: SocketAddr| {
            at.set_port(at.port() + 1);
            at
        };
        let inner = error(kind, backend, client, &packet(client, backend)).build()[14..].to_vec();
        let (reply, answer) = (packet(frontend, client), packet(client, backend));
        let later = if is_v6 {
            ip().between(TCP, client, backend)
                .fragment_extension(5, true)
        } else {
            ip().between(TCP, client, backend).fragment(5, true)
        };
        for (what, message) in [
            (
                "an echo request to a frontend",
                error(echo, client, frontend, b"echo"),
            ),
            (
                "an echo with a packet as its data",
                error(echo, client, frontend, &reply),
            ),
            (
                "a message that is no error any more",
                error(quench, client, frontend, &reply),
            ),
            (
                "an error about another port",
                error(
                    kind,
                    client,
                    frontend,
                    &packet(frontend, other_port(client)),
                ),
            ),
            (
                "an error about another frontend",
                error(kind, client, other, &packet(other, client)),
            ),
            (
                "an error about a frontend's packet, to somebody else",
                error(kind, client, other, &reply),
            ),
            (
                "an error about a backend's packet, to somebody else",
                error(kind, backend, other, &answer),
            ),
            (
                "an error about an error",
                error(kind, backend, client, &inner),
            ),
            (
                "an error about a later fragment",
                error(kind, backend, client, &later.build()),
            ),
            (
                "an error that quotes ports alone",
                error(
                    kind,
                    backend,
                    client,
                    &answer[..if is_v6 { 44 } else { 24 }],
                ),
            ),
            (
                "an error that quotes nothing",
                error(kind, backend, client, b""),
            ),
        ] {
            let bytes = message.build();
            for hook in [Hook::Ingress, Hook::Egress] {
                let mut flow = flow(is_v6, TCP, false, false);
                let mut packet = MemoryPacket::new(bytes.clone());
                let verdict = flow.node.pass(hook, &mut packet, Link::Ethernet);
                assert!(
                    matches!(verdict, Verdict::Pass(_)),
                    "{what} at {hook:?}: {verdict:?}"
                );
                assert_eq!(packet.bytes, bytes, "{what} at {hook:?}");
            }
        }
    }
}

#[test]
fn an_error_to_a_backend_behind_the_clients_bridge_is_bridged_like_a_request() {
    for is_v6 in FAMILIES {
        let mut node = node();
        let device = DeviceEntry {
            bridge: 7,
            ..DeviceEntry::default()
        };
        node.tables.devices.insert(1, device);
        let neighbour = [2, 9, 9, 9, 9, 9];
        let mut enter = |bytes: Vec<u8>| {
            let mut packet = MemoryPacket::new(bytes);
            let key = (7, backend(is_v6).ip());
            packet.neighbours.insert(key, neighbour);
            let verdict = node.pass(Hook::Ingress, &mut packet, Link::Ethernet);
            (verdict, packet.bytes[..6].to_vec())
        };
        let bridged = neighbour.to_vec();
        let opening = request(eth(), is_v6, UDP).build();
        assert_eq!(enter(opening), (REQUEST, bridged.clone()));
        let (_, kind, code, rest) = kinds(is_v6)[0];
        let answer = ip().between(UDP, frontend(is_v6), client(is_v6)).build();
        let (client, frontend) = (client(is_v6), frontend(is_v6));
        let refusal = error((kind, code, rest), client, frontend, &answer).build();
        assert_eq!(enter(refusal), (ERROR, bridged));
    }
}

#[test]
fn an_error_leaves_no_trace_in_the_flow() {
    let mut flow = flow(false, TCP, false, false);
    let before = flow.node.remembered(TCP, flow.client, flow.frontend);
    let quoted = Quoted {
        look: ip().between(TCP, flow.client, flow.frontend),
        bytes: None,
    };
    flow.node.clock.advance(20);
    let about = quoted.between(flow.frontend, flow.client);
    let received = error((3, 3, [0; 4]), flow.client, flow.frontend, &about).build();
    assert_eq!(flow.node.enter(&received).0, ERROR);
    assert_eq!(
        flow.node.remembered(TCP, flow.client, flow.frontend),
        before
    );
    let reply = eth().between(TCP, flow.backend, flow.client).build();
    assert_eq!(flow.node.leave(&reply).0, REPLY);
    assert_eq!(flow.node.tables.counted(Counter::FlowsOpened), 1);
}
