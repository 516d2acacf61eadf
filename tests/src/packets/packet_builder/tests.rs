use lb_common::PassReason;
use lb_ebpf::bytes::parse::Link;

use super::*;
use crate::packets::dissect::{assert_checksums, dissect};

#[test]
fn the_smallest_segment_has_the_bytes_of_the_standards() {
    let bytes = ip()
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
        .tcp(0x1111, 0x2222)
        .syn()
        .sequence(1)
        .acknowledge(0)
        .build();
    let expected = [
        0x45, 0, 0, 40, 0x12, 0x34, 0, 0, 64, 6, 0x54, 0x9a, 10, 0, 0, 1, 10, 0, 0, 2, // IP
        0x11, 0x11, 0x22, 0x22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0x48, 0xac, 0, 0,
    ];
    assert_eq!(bytes, expected, "{bytes:02x?}");
}

#[test]
fn every_kind_of_packet_has_right_checksums() {
    let v4 = || eth().ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
    let v6 = || eth().ipv6([0xfd; 16], [0xfe; 16]);
    for builder in [
        v4().tcp(1, 2),
        v4().udp(1, 2).payload(b"odd"),
        v4().udp(1, 2).without_checksum(),
        v4().options(&[7, 3, 4]).tcp(1, 2).payload(b"even"),
        v4().vlan(5).vlan(6).tcp(1, 2).tcp_options(&[2, 4, 5, 0xb4]),
        v6().tcp(1, 2).payload(b"odd"),
        v6().extension(0, 8).extension(60, 24).udp(1, 2),
        v6().extension(51, 24)
            .fragment_extension(0, false)
            .tcp(1, 2),
        v4().tcp(1, 2).padding(6),
    ] {
        assert_checksums(&builder.build(), Link::Ethernet);
    }
}

#[test]
fn a_packet_comes_apart_as_it_was_put_together() {
    let bytes = eth()
        .vlan(9)
        .ipv6([0xfd; 16], [0xfe; 16])
        .extension(0, 16)
        .extension(51, 24)
        .tcp(1234, 80)
        .flags(0x12)
        .sequence(7)
        .acknowledge(8)
        .build();
    let packet = dissect(&bytes, Link::Ethernet).unwrap();
    assert_eq!((packet.l3, packet.l4), (18, 18 + 40 + 16 + 24));
    assert_eq!(
        (packet.source.port(), packet.destination.port()),
        (1234, 80)
    );
    assert_eq!(
        (packet.flags, packet.sequence, packet.acknowledgement),
        (0x12, 7, 8)
    );
}

#[test]
fn what_is_no_tcp_or_udp_packet_is_named() {
    let v4 = || ip().ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
    let short = v4().tcp(1, 2).build();
    let v6 = || ip().ipv6([0xfd, 0, 0, 0, 0, 0, 0, 1], [0xfd, 0, 0, 0, 0, 0, 0, 2]);
    let mut long = v6()
        .extension(43, 8)
        .fragment_extension(0, true)
        .tcp(1, 2)
        .build();
    long[41] = 0x99;
    for (bytes, reason) in [
        (
            v4().other(1).payload(&[8; 8]).build(),
            PassReason::OtherProtocol,
        ),
        (
            v4().fragment(3, true).udp(1, 2).build(),
            PassReason::LaterFragment,
        ),
        (short[..39].to_vec(), PassReason::Malformed),
        (long, PassReason::Malformed),
        (vec![0x50; 40], PassReason::NotIp),
    ] {
        assert_eq!(dissect(&bytes, Link::Ip), Err(reason), "{bytes:02x?}");
    }
}

#[test]
fn a_wrong_byte_is_noticed() {
    let good = eth()
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
        .udp(1, 2)
        .payload(b"x")
        .build();
    for at in 14..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let noticed = std::panic::catch_unwind(|| assert_checksums(&bad, Link::Ethernet)).is_err();
        assert!(noticed, "byte {at}");
    }
}
