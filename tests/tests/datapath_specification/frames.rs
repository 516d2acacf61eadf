//! What a packet may look like, and that nothing but addresses, ports and their checksums changes.
use lb_common::{DropReason, Verdict};
use lb_ebpf::bytes::parse::Link;
use tests::{
    memory_packet::MemoryPacket,
    packets::dissect::{TCP, UDP, assert_checksums, dissect},
    packets::generate::Hook,
    packets::packet_builder::{eth, ip},
};

use crate::fixture::{REPLY, REQUEST, backend, client, frontend, looks, node, rebuilt, request};

#[test]
fn a_request_gets_its_backend_whatever_it_looks_like() {
    for (look, is_v6, packet) in looks() {
        let before = packet.build();
        let (verdict, after) = node().enter(&before);
        assert_eq!(verdict, REQUEST, "{look}");
        assert_checksums(&after, Link::Ethernet);
        let found = dissect(&after, Link::Ethernet).unwrap();
        assert_eq!(
            (found.source, found.destination),
            (client(is_v6), backend(is_v6)),
            "{look}"
        );
        // The packet is the one that the client would have sent to the backend itself, byte for byte.
        let direct = rebuilt(&packet, client(is_v6), backend(is_v6));
        assert_eq!(after, direct, "{look}");
    }
}

#[test]
fn a_reply_gets_its_frontend_whatever_it_looks_like() {
    for (look, is_v6, packet) in looks() {
        let mut node = node();
        let (_, _) = node.enter(&packet.build());
        let (verdict, after) = node.leave(&rebuilt(&packet, backend(is_v6), client(is_v6)));
        assert_eq!(verdict, REPLY, "{look}");
        assert_checksums(&after, Link::Ethernet);
        assert_eq!(
            after,
            rebuilt(&packet, frontend(is_v6), client(is_v6)),
            "{look}"
        );
    }
}

#[test]
fn on_a_device_without_ethernet_packets_start_at_the_ip_header() {
    for is_v6 in [false, true] {
        let mut node = node();
        let mut packet = MemoryPacket::new(request(ip(), is_v6, TCP).build());
        assert_eq!(node.pass(Hook::Ingress, &mut packet, Link::Ip), REQUEST);
        assert_checksums(&packet.bytes, Link::Ip);
        let mut reply = MemoryPacket::new(
            ip().between(TCP, backend(is_v6), client(is_v6))
                .syn_ack()
                .build(),
        );
        assert_eq!(node.pass(Hook::Egress, &mut reply, Link::Ip), REPLY);
        let found = dissect(&reply.bytes, Link::Ip).unwrap();
        assert_eq!(found.source, frontend(is_v6));
    }
}

#[test]
fn a_packet_in_pieces_is_pulled_together_once() {
    for (look, _, packet) in looks() {
        let before = packet.build();
        let (_, expected) = node().enter(&before);
        for linear in 0..before.len() {
            let mut packet = MemoryPacket::new(before.clone()).with_linear(linear);
            let verdict = node().pass(Hook::Ingress, &mut packet, Link::Ethernet);
            assert_eq!(
                (verdict, &packet.bytes),
                (REQUEST, &expected),
                "{look}, {linear} bytes linear"
            );
            assert!(
                packet.pulls <= 1,
                "{look}, {linear} bytes linear: pulled {} times",
                packet.pulls
            );
        }
    }
}

#[test]
fn a_frame_cut_anywhere_is_whole_again_or_untouched() {
    for (look, _, packet) in looks() {
        let before = packet.build();
        for length in 0..before.len() {
            let cut = &before[..length];
            let (verdict, after) = node().enter(cut);
            match verdict {
                Verdict::Translated(_) => assert_eq!(after.len(), length, "{look}"),
                Verdict::Pass(_) | Verdict::Drop(_) => assert_eq!(after, cut, "{look} at {length}"),
            }
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    for is_v6 in [false, true] {
        // Some pair of bytes brings the sum of the translated packet to zero.
        let mut met = 0;
        for word in 0..=u16::MAX {
            let packet = request(eth(), is_v6, UDP).payload(&word.to_be_bytes());
            let direct = rebuilt(&packet, client(is_v6), backend(is_v6));
            let field = dissect(&direct, Link::Ethernet).unwrap().checksum_at();
            if direct[field..field + 2] != [0xff, 0xff] {
                continue;
            }
            met += 1;
            let (verdict, after) = node().enter(&packet.build());
            assert_eq!((verdict, after), (REQUEST, direct));
        }
        assert_eq!(met, 1, "one word of 65,536 makes the sum zero");
    }
}

#[test]
fn a_tcp_checksum_that_comes_out_as_zero_is_sent_as_zero() {
    for is_v6 in [false, true] {
        let with = |word: [u8; 2]| request(eth(), is_v6, TCP).payload(&word);
        let direct = |packet: &_| rebuilt(packet, client(is_v6), backend(is_v6));
        // The sum of the translated packet, as a word of its own, makes it zero.
        let bytes = direct(&with([0, 0]));
        let field = dissect(&bytes, Link::Ethernet).unwrap().checksum_at();
        let packet = with([bytes[field], bytes[field + 1]]);
        let expected = direct(&packet);
        assert_eq!(expected[field..field + 2], [0, 0]);
        assert_eq!(node().enter(&packet.build()), (REQUEST, expected));
        // Nor does a zero that comes in mean that there is none.
        let bytes = with([0, 0]).build();
        let packet = with([bytes[field], bytes[field + 1]]);
        assert_eq!(packet.build()[field..field + 2], [0, 0]);
        let expected = direct(&packet);
        assert_eq!(node().enter(&packet.build()), (REQUEST, expected));
    }
}

#[test]
fn a_packet_that_was_wrong_is_not_put_right() {
    let mut bytes = request(eth(), false, TCP).build();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    let (verdict, after) = node().enter(&bytes);
    assert_eq!(verdict, REQUEST);
    let wrong = std::panic::catch_unwind(|| assert_checksums(&after, Link::Ethernet));
    assert!(wrong.is_err(), "a damaged packet got a checksum that fits");
}

#[test]
fn a_packet_whose_checksum_cannot_be_changed_goes_nowhere() {
    let mut packet = MemoryPacket::new(request(eth(), false, TCP).build());
    packet.refuses_checksums = true;
    let verdict = node().pass(Hook::Ingress, &mut packet, Link::Ethernet);
    assert_eq!(verdict, Verdict::Drop(DropReason::HalfRewritten));
}
