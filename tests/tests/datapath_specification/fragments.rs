//! Datagrams in pieces: each piece is the one that would have come if the sender had known the other address.
use std::net::SocketAddr;

use bytemuck::Zeroable as _;
use lb_common::{
    Counter, DeviceEntry, DropReason, FlowSide, FrontendEntry, FrontendFlags, FrontendKey,
    PassReason, Prefix, Translation, Verdict,
};
use lb_ebpf::{
    bytes::{headers::Wire, parse::Link, parsed::Parsed},
    context::{self, scratch::Scratch},
    path::pipeline::{self, Observer},
};
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath::HostDatapath,
    packets::dissect::{TCP, UDP},
    packets::generate::Hook,
    packets::packet_builder::{eth, ip},
};

use crate::fixture::{REPLY, REQUEST, backend, client, frontend, node, request};

const FAMILIES: [bool; 2] = [false, true];
const LATER: Verdict = Verdict::Translated(Translation::LaterFragment);
const STRANGE: Verdict = Verdict::Pass(PassReason::LaterFragment);
const EARLY: Verdict = Verdict::Drop(DropReason::EarlyFragment);
/// Bytes of each piece but the last.
const PIECE: usize = 64;

/// A datagram of 200 bytes from one end to the other in pieces.
fn pieces(
    protocol: u8,
    identification: u16,
    source: SocketAddr,
    destination: SocketAddr,
) -> Vec<Vec<u8>> {
    let whole = ip()
        .between(protocol, source, destination)
        .syn()
        .payload(&[0x5a; 200])
        .build();
    let segment = whole.split_at(if source.is_ipv6() { 40 } else { 20 }).1;
    let mut offset = 0;
    let mut frames = Vec::new();
    for chunk in segment.chunks(PIECE) {
        let is_last = usize::from(offset) * 8 + chunk.len() == segment.len();
        let frame = eth()
            .between(protocol, source, destination)
            .other(protocol)
            .identification(identification)
            .payload(chunk);
        let frame = if source.is_ipv6() {
            frame.fragment_extension(offset, !is_last)
        } else {
            frame.fragment(offset, !is_last)
        };
        frames.push(frame.build());
        offset += u16::try_from(PIECE / 8).expect("a small number");
    }
    assert_eq!(frames.len(), segment.len().div_ceil(PIECE));
    frames
}

/// An address that is a Service's, whatever the port.
fn is_a_services(node: &mut HostDatapath, at: SocketAddr) {
    let entry = FrontendEntry {
        service_id: 0,
        flags: FrontendFlags::REFUSES,
    };
    // With no bits that count, all addresses may be.
    node.tables.networks.v4.around_services = Prefix::zeroed();
    node.tables.networks.v6.around_services = Prefix::zeroed();
    match at {
        SocketAddr::V4(at) => {
            let key = FrontendKey::any_port((*at.ip()).into());
            node.tables.v4.frontends.insert(key, entry);
        }
        SocketAddr::V6(at) => {
            let key = FrontendKey::any_port((*at.ip()).into());
            node.tables.v6.frontends.insert(key, entry);
        }
    }
}

/// Passes frames through a hook, and says of each that it became what it should.
#[track_caller]
fn become_of(node: &mut HostDatapath, hook: Hook, before: &[Vec<u8>], after: &[Vec<u8>]) {
    let (first, enters) = match hook {
        Hook::Ingress => (REQUEST, true),
        Hook::Egress => (REPLY, false),
    };
    for (nth, (before, after)) in before.iter().zip(after).enumerate() {
        let (verdict, bytes) = if enters {
            node.enter(before)
        } else {
            node.leave(before)
        };
        let expected = if nth == 0 { first } else { LATER };
        assert_eq!((verdict, &bytes), (expected, after), "piece {nth}");
    }
}

#[test]
fn all_pieces_of_a_datagram_go_to_the_backend_and_come_back_from_the_frontend() {
    for is_v6 in FAMILIES {
        let (client, frontend, backend) = (client(is_v6), frontend(is_v6), backend(is_v6));
        for protocol in [UDP, TCP] {
            let mut node = node();
            // The first piece of the first datagram opens the flow; the next datagram belongs to it.
            for id in [1, 2] {
                let sent = pieces(protocol, id, client, frontend);
                let received = pieces(protocol, id, client, backend);
                become_of(&mut node, Hook::Ingress, &sent, &received);
                let sent = pieces(protocol, id, backend, client);
                let received = pieces(protocol, id, frontend, client);
                become_of(&mut node, Hook::Egress, &sent, &received);
            }
            assert_eq!(node.tables.counted(Counter::FlowsOpened), 1);
        }
    }
}

#[test]
fn pieces_of_masqueraded_datagrams_have_one_source() {
    for is_v6 in FAMILIES {
        let (client, frontend, backend) = (client(is_v6), frontend(is_v6), backend(is_v6));
        let mut node = node();
        let device = DeviceEntry {
            masquerade_v4: [10, 1, 0, 1].into(),
            masquerade_v6: [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into(),
            ..DeviceEntry::default()
        };
        node.tables.devices.insert(1, device);
        let tables = &mut node.tables;
        let v4 = tables.v4.frontends.values_mut();
        for entry in v4.chain(tables.v6.frontends.values_mut()) {
            entry.flags = FrontendFlags::MASQUERADE;
        }
        let mut shown = None;
        for piece in pieces(UDP, 1, client, frontend) {
            let (entered, routed) = node.enter(&piece);
            assert!(matches!(entered, Verdict::Translated(_)), "{entered:?}");
            let (left, sent) = node.leave(&routed);
            assert!(matches!(left, Verdict::Translated(_)), "{left:?}");
            let ports = if is_v6 { 14 + 48 } else { 14 + 20 };
            let port = u16::from_be_bytes([sent[ports], sent[ports + 1]]);
            let nodes_own = if is_v6 { "fd00:1::1" } else { "10.1.0.1" };
            let source = SocketAddr::new(nodes_own.parse().expect("an address"), port);
            shown.get_or_insert(source);
        }
        let shown = shown.expect("a first piece");
        let answers = pieces(UDP, 9, backend, shown);
        for (nth, (answer, expected)) in answers
            .iter()
            .zip(pieces(UDP, 9, frontend, client))
            .enumerate()
        {
            let (entered, routed) = node.enter(answer);
            let first = Verdict::Translated(Translation::MasqueradedReply);
            assert_eq!(entered, if nth == 0 { first } else { LATER });
            let (left, sent) = node.leave(&routed);
            assert_eq!(left, if nth == 0 { REPLY } else { LATER });
            assert_eq!(sent, expected);
        }
    }
}

#[test]
fn a_piece_that_comes_before_the_first_is_not_let_through_to_a_services_address() {
    for is_v6 in FAMILIES {
        let (client, frontend, backend) = (client(is_v6), frontend(is_v6), backend(is_v6));
        let sent = pieces(UDP, 1, client, frontend);
        let mut node = node();
        // To a node's own address, of which some ports are frontends, it may be somebody else's.
        assert_eq!(node.enter(&sent[1]), (STRANGE, sent[1].clone()));
        is_a_services(&mut node, frontend);
        assert_eq!(node.enter(&sent[1]), (EARLY, sent[1].clone()));
        assert_eq!(EARLY.counter(), Some(Counter::DropEarlyFragment));
        // Once the first is there, those that come again are known, in any order.
        assert_eq!(node.enter(&sent[0]).0, REQUEST);
        let received = pieces(UDP, 1, client, backend);
        for nth in [3, 1, 2, 1] {
            assert_eq!(node.enter(&sent[nth]), (LATER, received[nth].clone()));
        }
        // On the way back there is no telling who sends.
        let answer = pieces(UDP, 2, backend, client);
        assert_eq!(node.leave(&answer[1]), (STRANGE, answer[1].clone()));
    }
}

#[test]
fn pieces_of_other_datagrams_are_not_taken_for_these() {
    for is_v6 in FAMILIES {
        let (client, frontend, backend) = (client(is_v6), frontend(is_v6), backend(is_v6));
        let mut node = node();
        let open = pieces(UDP, 1, client, frontend);
        assert_eq!(node.enter(&open[0]).0, REQUEST);
        let another = |mut at: SocketAddr| {
            at.set_ip(if is_v6 {
                "fd00:7::77".parse().expect("an address")
            } else {
                "10.7.0.77".parse().expect("an address")
            });
            at
        };
        let mut strange = vec![
            pieces(UDP, 2, client, frontend),
            pieces(UDP, 1, another(client), frontend),
            pieces(UDP, 1, client, another(frontend)),
            pieces(UDP, 1, frontend, client),
            pieces(UDP, 1, client, backend),
        ];
        if !is_v6 {
            // Over IPv6 the protocol does not count.
            strange.push(pieces(TCP, 1, client, frontend));
        }
        for pieces in strange {
            let piece = &pieces[1];
            assert_eq!(node.enter(piece), (STRANGE, piece.clone()));
            assert_eq!(node.leave(piece), (STRANGE, piece.clone()));
        }
        // These are not for the other hook.
        assert_eq!(node.leave(&open[1]), (STRANGE, open[1].clone()));
    }
}

#[test]
fn an_identification_is_another_datagrams_after_half_a_minute() {
    let sent = pieces(UDP, 1, client(false), frontend(false));
    let mut node = node();
    assert_eq!(node.enter(&sent[0]).0, REQUEST);
    node.tables.clock.advance(29);
    assert_eq!(node.enter(&sent[1]).0, LATER);
    node.tables.clock.advance(1);
    assert_eq!(node.enter(&sent[1]).0, STRANGE);
    assert_eq!(node.enter(&sent[0]).0, REQUEST);
    assert_eq!(node.enter(&sent[1]).0, LATER);
}

#[test]
fn a_first_piece_that_cannot_be_remembered_goes_nowhere() {
    for is_v6 in FAMILIES {
        let sent = pieces(UDP, 1, client(is_v6), frontend(is_v6));
        let mut node = node();
        node.tables.v4.instrument.takes_no_fragments = true;
        node.tables.v6.instrument.takes_no_fragments = true;
        let dropped = Verdict::Drop(DropReason::Fragmented);
        assert_eq!(node.enter(&sent[0]), (dropped, sent[0].clone()));
    }
}

#[test]
fn what_is_whole_or_not_ours_leaves_no_trace_among_the_pieces() {
    for is_v6 in FAMILIES {
        let mut node = node();
        let mut whole = vec![request(eth(), is_v6, UDP).build()];
        if is_v6 {
            let atomic = request(eth(), true, UDP).fragment_extension(0, false);
            whole.push(atomic.build());
        }
        for bytes in whole {
            assert_eq!(node.enter(&bytes).0, REQUEST);
        }
        let direct = pieces(UDP, 1, client(is_v6), backend(is_v6));
        let (verdict, _) = node.enter(&direct[0]);
        assert_eq!(verdict, Verdict::Pass(PassReason::NotOurs));
        assert!(node.tables.v4.fragments.is_empty() && node.tables.v6.fragments.is_empty());
    }
}

#[test]
fn pieces_to_a_backend_behind_the_clients_bridge_are_bridged() {
    for is_v6 in FAMILIES {
        let mut node = node();
        let device = DeviceEntry {
            bridge: 7,
            ..DeviceEntry::default()
        };
        node.tables.devices.insert(1, device);
        let neighbour = [2, 9, 9, 9, 9, 9];
        for piece in pieces(UDP, 1, client(is_v6), frontend(is_v6)) {
            let mut packet = MemoryPacket::new(piece);
            let key = (7, backend(is_v6).ip());
            packet.neighbours.insert(key, neighbour);
            let verdict = node.pass(Hook::Ingress, &mut packet, Link::Ethernet);
            assert!(matches!(verdict, Verdict::Translated(_)), "{verdict:?}");
            assert_eq!(packet.bytes[..6], neighbour);
        }
    }
}

#[test]
fn a_piece_cut_anywhere_is_translated_or_untouched() {
    for is_v6 in FAMILIES {
        let sent = pieces(UDP, 1, client(is_v6), frontend(is_v6));
        let received = pieces(UDP, 1, client(is_v6), backend(is_v6));
        let mut node = node();
        assert_eq!(node.enter(&sent[0]).0, REQUEST);
        for length in 0..sent[1].len() {
            let cut = &sent[1][..length];
            let (verdict, after) = node.enter(cut);
            if verdict == LATER {
                assert_eq!(after, received[1][..length]);
            } else {
                assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
                assert_eq!(after, cut);
            }
            let mut packet = MemoryPacket::new(sent[1].clone()).with_linear(length);
            let verdict = node.pass(Hook::Ingress, &mut packet, Link::Ethernet);
            assert_eq!((verdict, &packet.bytes), (LATER, &received[1]));
        }
    }
}

#[test]
fn a_whole_packet_after_a_piece_is_whole() {
    for is_v6 in FAMILIES {
        let mut node = node();
        let first = pieces(UDP, 1, client(is_v6), frontend(is_v6)).swap_remove(0);
        let kept =
            |node: &HostDatapath| node.tables.v4.fragments.len() + node.tables.v6.fragments.len();
        assert_eq!(node.enter(&first).0, REQUEST);
        assert_eq!(kept(&node), 1);
        node.tables.v4.fragments.clear();
        node.tables.v6.fragments.clear();
        let whole = request(eth(), is_v6, UDP).extension(60, 8);
        let plain = request(eth(), is_v6, UDP);
        for packet in [
            plain,
            if is_v6 {
                whole
            } else {
                request(eth(), is_v6, TCP)
            },
        ] {
            assert_eq!(node.enter(&packet.build()).0, REQUEST);
            assert_eq!(kept(&node), 0, "IPv6: {is_v6}");
        }
    }
}

/// Notes what it is told of packets.
#[derive(Default)]
struct Notes(Vec<(u8, u16, u16, Verdict)>);
impl Observer for Notes {
    fn observe<F: Wire>(&mut self, parsed: &Parsed<F>, verdict: Verdict) {
        let tuple = &parsed.tuple;
        let (source, destination) = (tuple.source_port, tuple.destination_port);
        let ports = (source.number(), destination.number());
        self.0
            .push((tuple.protocol_number(), ports.0, ports.1, verdict));
    }
}

#[test]
fn a_later_piece_is_not_told_of_with_the_ports_of_the_packet_before_it() {
    for is_v6 in FAMILIES {
        let mut node = node();
        is_a_services(&mut node, frontend(is_v6));
        let (mut scratch, mut notes) = (Scratch::default(), Notes::default());
        let later = pieces(UDP, 1, client(is_v6), frontend(is_v6)).swap_remove(1);
        for bytes in [request(eth(), is_v6, TCP).build(), later] {
            let mut packet = MemoryPacket::new(bytes);
            let hook = context::Hook {
                side: FlowSide::Destination,
                link: Link::Ethernet,
            };
            let (memory, tables) = (scratch.memory(), &mut node.tables);
            let _told = pipeline::run(&mut packet, hook, memory, tables, &mut notes);
        }
        let (source, destination) = (client(is_v6).port(), frontend(is_v6).port());
        let expected = [(TCP, source, destination, REQUEST), (UDP, 0, 0, EARLY)];
        assert_eq!(notes.0, expected, "IPv6: {is_v6}");
    }
}
