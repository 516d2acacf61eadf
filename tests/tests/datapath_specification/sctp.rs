//! SCTP: an association is a flow, and its sum covers ports but no addresses.
use lb_common::{BackendState, DropReason, Verdict};
use lb_ebpf::{bytes::parse::Link, context::environment::FlowTable};
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{
        SCTP, assert_checksums, dissect,
        flag::{ACK, FIN, SYN},
    },
    packets::packet_builder::{PacketBuilder, eth},
};

use crate::fixture::{REPLY, REQUEST, backend, client, frontend, rebuilt};

const SERVICE: u32 = 9;
const NO_FLOW: Verdict = Verdict::Drop(DropReason::NoFlow);

/// The service, whose pod listens at another port.
fn node(is_v6: bool) -> HostDatapath {
    let mut node = HostDatapath::default();
    node.frontend(SERVICE, SCTP, frontend(is_v6));
    node.backend(SERVICE, SERVICE, backend(is_v6), BackendState::Active);
    node.candidates(SERVICE, &[SERVICE]);
    node
}

fn asks(is_v6: bool, flags: u8, tag: u32) -> PacketBuilder {
    let packet = eth().between(SCTP, client(is_v6), frontend(is_v6));
    packet.flags(flags).acknowledge(tag).payload(b"payload")
}

/// The pod's tag is 901.
fn answers(is_v6: bool, flags: u8) -> PacketBuilder {
    let packet = eth().between(SCTP, backend(is_v6), client(is_v6));
    packet.flags(flags).sequence(900).payload(b"answer")
}

#[test]
fn an_association_is_opened_by_init_and_proven_by_the_pods_tag() {
    for is_v6 in [false, true] {
        let mut node = node(is_v6);
        assert_eq!(node.enter(&asks(is_v6, ACK, 7).build()).0, NO_FLOW, "DATA");
        assert_eq!(node.enter(&asks(is_v6, SYN | ACK, 7).build()).0, NO_FLOW);
        let init = asks(is_v6, SYN, 0);
        let (verdict, bytes) = node.enter(&init.build());
        assert_eq!(verdict, REQUEST);
        assert_eq!(bytes, rebuilt(&init, client(is_v6), backend(is_v6)));
        assert_checksums(&bytes, Link::Ethernet);
        let init_ack = answers(is_v6, SYN | ACK);
        let (verdict, bytes) = node.leave(&init_ack.build());
        assert_eq!(verdict, REPLY);
        assert_eq!(bytes, rebuilt(&init_ack, frontend(is_v6), client(is_v6)));
        for (tag, table) in [(900, FlowTable::Opening), (901, FlowTable::Proven)] {
            assert_eq!(node.enter(&asks(is_v6, ACK, tag).build()).0, REQUEST);
            let proven = node.tables.v4.proven.len() + node.tables.v6.proven.len();
            assert_eq!(
                proven,
                if table == FlowTable::Proven { 2 } else { 0 },
                "tag {tag}"
            );
        }
    }
}

#[test]
fn an_association_that_both_ends_have_shut_down_is_over() {
    let mut node = node(false);
    for packet in [asks(false, SYN, 0), asks(false, FIN, 901)] {
        assert_eq!(node.enter(&packet.build()).0, REQUEST);
    }
    node.backend(SERVICE, SERVICE, backend(false), BackendState::Gone);
    let other = crate::fixture::at("10.244.0.7:8080");
    node.backend(SERVICE + 1, SERVICE, other, BackendState::Active);
    node.candidates(SERVICE, &[SERVICE + 1]);
    assert_eq!(node.leave(&answers(false, FIN).build()).0, REPLY);
    let (_, bytes) = node.enter(&asks(false, SYN, 0).build());
    assert_eq!(dissect(&bytes, Link::Ethernet).unwrap().destination, other);
}

#[test]
fn a_sum_that_a_device_is_yet_to_compute_stays_zero_and_a_wrong_one_stays_wrong() {
    let mut bytes = asks(false, SYN, 0).build();
    let sum = dissect(&bytes, Link::Ethernet).unwrap().checksum_at();
    bytes[sum..sum + 4].fill(0);
    let (verdict, sent) = node(false).enter(&bytes);
    assert_eq!((verdict, &sent[sum..sum + 4]), (REQUEST, &[0; 4][..]));

    let right = asks(false, SYN, 0).build();
    let mut wrong = right.clone();
    wrong[sum + 2] ^= 0x10;
    let (_, from_right) = node(false).enter(&right);
    let (_, from_wrong) = node(false).enter(&wrong);
    let difference = from_right.iter().zip(&from_wrong).map(|(a, b)| a ^ b);
    let difference: Vec<(usize, u8)> = difference.enumerate().filter(|it| it.1 != 0).collect();
    assert_eq!(difference, [(sum + 2, 0x10)]);
}

#[test]
fn where_the_port_stays_so_does_the_sum() {
    let mut node = node(false);
    let same_port = crate::fixture::at("10.244.0.2:80");
    node.backend(SERVICE, SERVICE, same_port, BackendState::Active);
    let bytes = asks(false, SYN, 0).build();
    let sum = dissect(&bytes, Link::Ethernet).unwrap().checksum_at();
    let (verdict, sent) = node.enter(&bytes);
    assert_eq!(verdict, REQUEST);
    assert_eq!(sent[sum..sum + 4], bytes[sum..sum + 4]);
    assert_checksums(&sent, Link::Ethernet);
}

#[test]
fn a_part_of_a_packet_goes_nowhere_and_leaves_no_trace() {
    const FRAGMENTED: Verdict = Verdict::Drop(DropReason::Fragmented);
    for is_v6 in [false, true] {
        let part = |packet: PacketBuilder| {
            if is_v6 {
                packet.fragment_extension(0, true).build()
            } else {
                packet.fragment(0, true).build()
            }
        };
        let mut node = node(is_v6);
        let first = part(asks(is_v6, SYN, 0));
        assert_eq!(node.enter(&first), (FRAGMENTED, first));
        let is_empty = |node: &HostDatapath| {
            node.tables.v4.opening.is_empty() && node.tables.v6.opening.is_empty()
        };
        assert!(is_empty(&node), "it has opened a flow");
        assert_eq!(node.enter(&asks(is_v6, SYN, 0).build()).0, REQUEST);
        let entries = |node: &HostDatapath| {
            let v4: Vec<_> = node.tables.v4.opening.iter().collect();
            let v6: Vec<_> = node.tables.v6.opening.iter().collect();
            (v4, v6)
        };
        let before = entries(&node);
        node.tables.clock.advance(5);
        for flags in [ACK, FIN] {
            let request = part(asks(is_v6, flags, 901));
            assert_eq!(node.enter(&request), (FRAGMENTED, request));
            let reply = part(answers(is_v6, flags));
            assert_eq!(node.leave(&reply), (FRAGMENTED, reply));
        }
        assert_eq!(entries(&node), before);
    }
}
