//! What is not translated, and why; that nothing of it changes, and that it costs little.
use lb_common::{PassReason, Verdict};
use lb_ebpf::bytes::parse::Link;
use tests::{
    memory_packet::MemoryPacket,
    packets::dissect::{TCP, UDP, flag},
    packets::generate::Hook,
    packets::packet_builder::eth,
};

use crate::fixture::{at, backend, client, frontend, node, request};

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_is_not_ours_passes_untouched_for_a_reason() {
    use PassReason::{LaterFragment, Malformed, NotIp, NotOurs, OtherProtocol};
    let tcp = || request(eth(), false, TCP);
    let tcp6 = || request(eth(), true, TCP);
    let arp = [&[2; 12][..], &[0x08, 0x06], &[0; 28]].concat();
    let wrong_version = |mut bytes: Vec<u8>, byte| {
        bytes[14] = byte;
        bytes
    };
    let to = |text| eth().between(TCP, client(false), at(text)).syn().build();
    let seven = (0..7)
        .fold(tcp6(), |packet, _| packet.extension(60, 8))
        .build();
    let long = (0..4)
        .fold(tcp6(), |packet, _| packet.extension(60, 264))
        .build();
    for (what, bytes, reason) in [
        ("an empty frame", vec![], Malformed),
        ("half an Ethernet header", vec![2; 13], Malformed),
        ("ARP", arp, NotIp),
        (
            "three VLAN tags",
            request(eth().vlan(1).vlan(2).vlan(3), false, TCP).build(),
            NotIp,
        ),
        (
            "IPv6 that says IPv4",
            wrong_version(tcp().build(), 0x65),
            Malformed,
        ),
        (
            "an IPv4 header of 16 bytes",
            wrong_version(tcp().build(), 0x44),
            Malformed,
        ),
        (
            "IPv4 that says IPv6",
            wrong_version(tcp6().build(), 0x45),
            Malformed,
        ),
        (
            "half a TCP header",
            tcp().build()[..14 + 20 + 10].to_vec(),
            Malformed,
        ),
        (
            "half an IPv6 header",
            tcp6().build()[..14 + 20].to_vec(),
            Malformed,
        ),
        (
            "ICMP",
            eth()
                .ipv4([10, 7, 0, 9], [10, 96, 0, 1])
                .other(1)
                .payload(&[8; 20])
                .build(),
            OtherProtocol,
        ),
        (
            "UDP-Lite",
            eth()
                .ipv4([10, 7, 0, 9], [10, 96, 0, 1])
                .other(136)
                .payload(&[0; 20])
                .build(),
            OtherProtocol,
        ),
        ("seven extension headers", seven, OtherProtocol),
        ("more than 1023 bytes of headers", long, Malformed),
        (
            "a later fragment over IPv4",
            tcp().fragment(3, true).build(),
            LaterFragment,
        ),
        (
            "the last fragment over IPv4",
            tcp().fragment(3, false).build(),
            LaterFragment,
        ),
        (
            "a later fragment over IPv6",
            tcp6().fragment_extension(3, true).build(),
            LaterFragment,
        ),
        ("another port", to("10.96.0.1:81"), NotOurs),
        ("another address", to("10.96.0.2:80"), NotOurs),
        ("a pod itself", to("10.244.0.2:8080"), NotOurs),
        (
            "a first fragment to somebody else",
            eth()
                .between(UDP, client(false), at("10.9.9.9:53"))
                .fragment(0, true)
                .build(),
            NotOurs,
        ),
    ] {
        for hook in [Hook::Ingress, Hook::Egress] {
            let mut node = node();
            let mut packet = MemoryPacket::new(bytes.clone());
            let verdict = node.pass(hook, &mut packet, Link::Ethernet);
            assert_eq!(verdict, Verdict::Pass(reason), "{what} at {hook:?}");
            assert_eq!(packet.bytes, bytes, "{what} at {hook:?}");
            assert!(node.tables.v4.opening.is_empty(), "{what} left a trace");
        }
    }
}

#[test]
fn a_request_to_a_frontend_is_nothing_on_egress() {
    let bytes = request(eth(), false, TCP).build();
    assert_eq!(
        node().leave(&bytes),
        (Verdict::Pass(PassReason::NotOurs), bytes)
    );
}

#[test]
fn what_is_known_on_one_side_of_the_node_is_nothing_on_the_other() {
    for is_proven in [false, true] {
        let mut node = crate::talk::node();
        let (client, frontend) = (crate::talk::client(1000), crate::talk::frontend());
        let pod = if is_proven {
            crate::talk::established(&mut node, 1000)
        } else {
            let opened = crate::talk::talk(&mut node, TCP, 1000).ask(flag::SYN);
            opened.expect("a backend")
        };
        let not_ours = Verdict::Pass(PassReason::NotOurs);
        let request = eth().between(TCP, client, frontend).build();
        assert_eq!(node.leave(&request), (not_ours, request));
        let reply = eth().between(TCP, pod, client).build();
        assert_eq!(node.enter(&reply), (not_ours, reply));
    }
}

#[test]
fn a_second_attached_device_changes_nothing() {
    for is_v6 in [false, true] {
        let mut node = node();
        let (_, once) = node.enter(&request(eth(), is_v6, TCP).build());
        let untouched = |bytes: &Vec<u8>| (Verdict::Pass(PassReason::NotOurs), bytes.clone());
        assert_eq!(
            node.enter(&once),
            untouched(&once),
            "a bridge behind its port"
        );
        assert_eq!(node.leave(&once), untouched(&once), "the pod's device");
        let reply = eth()
            .between(TCP, backend(is_v6), client(is_v6))
            .syn_ack()
            .build();
        assert_eq!(
            node.enter(&reply),
            untouched(&reply),
            "the pod's device, inwards"
        );
        let (_, answered) = node.leave(&reply);
        assert_eq!(
            node.leave(&answered),
            untouched(&answered),
            "a device above the uplink"
        );
    }
}

#[test]
fn a_packet_that_is_not_ours_costs_three_lookups_at_most() {
    for is_v6 in [false, true] {
        let mut other = frontend(is_v6);
        other.set_port(81);
        for flags in [flag::SYN, flag::ACK] {
            let mut node = node();
            let bytes = eth()
                .between(TCP, client(is_v6), other)
                .flags(flags)
                .build();
            assert_eq!(node.enter(&bytes).0, Verdict::Pass(PassReason::NotOurs));
            assert!(
                node.tables.instrument.lookups.get() <= 3,
                "{} lookups",
                node.tables.instrument.lookups.get()
            );
            node.tables.instrument.lookups.set(0);
            assert_eq!(node.leave(&bytes).0, Verdict::Pass(PassReason::NotOurs));
            assert!(
                node.tables.instrument.lookups.get() <= 2,
                "{} lookups",
                node.tables.instrument.lookups.get()
            );
        }
    }
}
