//! ICMP errors about packets of services: who hears of one finds in it what he has sent. Each is compared byte by byte
//! with the error that the other end would have got without a service in between.
use std::net::SocketAddr;

use lb_common::{Counter, DeviceEntry, DropReason, PassReason, Verdict};
use lb_ebpf::bytes::parse::Link;
use tests::{
    memory_packet::MemoryPacket,
    packets::dissect::{TCP, UDP},
    packets::generate::Hook,
    packets::packet_builder::{eth, ip},
};

use crate::{
    fixture::{REPLY, REQUEST, at, backend, client, frontend, node, request},
    icmp_talk::{ERROR, FAMILIES, Flow, Quoted, error, flow, for_all, kinds, router, through},
};

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
    flow.node.tables.clock.advance(20);
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

#[test]
fn an_error_whose_quoted_sum_is_said_to_be_there_and_is_not_goes_nowhere() {
    for is_v6 in FAMILIES {
        let (_, kind, code, rest) = kinds(is_v6)[0];
        let quoted = Quoted {
            look: ip().between(TCP, client(is_v6), frontend(is_v6)),
            bytes: None,
        };
        let about = quoted.between(client(is_v6), backend(is_v6));
        let bytes = error((kind, code, rest), backend(is_v6), client(is_v6), &about).build();
        // The quoted TCP header is the end of the packet. The ports are within its first 8 bytes, the sum ends at 18.
        let quoted_tcp = bytes.len() - 20;
        for (there, expected) in [
            (8, Verdict::Drop(DropReason::QuoteOutOfReach)),
            (17, Verdict::Drop(DropReason::QuoteOutOfReach)),
            (18, ERROR),
        ] {
            let mut node = flow(is_v6, TCP, false, false).node;
            let cut = &bytes[..quoted_tcp + there];
            let (verdict, after) = node.leave(cut);
            assert_eq!(verdict, expected, "{there} bytes of the quoted header");
            assert_eq!(after != cut, expected == ERROR, "{there} bytes");
        }
    }
    let counter = Verdict::Drop(DropReason::QuoteOutOfReach).counter();
    assert_eq!(counter, Some(Counter::DropQuoteOutOfReach));
}
