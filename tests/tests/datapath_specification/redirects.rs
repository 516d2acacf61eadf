//! Routers that know a shorter way for packets of a service do not know that the packets need the way they go.
use std::net::SocketAddr;

use lb_common::{Counter, DropReason, PassReason, Verdict};
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath::HostDatapath,
    packets::dissect::{ICMP_V4, ICMP_V6, TCP},
    packets::generate::Hook,
    packets::packet_builder::{eth, ip},
};

use crate::fixture::{REPLY, at, backend, client, frontend, node, request};
use lb_ebpf::bytes::parse::Link;

/// A redirect to the sender of a packet, with that packet in it; over IPv6 behind other options.
fn redirect(source: SocketAddr, destination: SocketAddr, options: &[&[u8]]) -> Vec<u8> {
    let packet = ip()
        .between(TCP, source, destination)
        .payload(b"12345678")
        .build();
    if source.is_ipv4() {
        let router = at("10.99.0.1:0");
        return eth()
            .between(ICMP_V4, router, source)
            .icmp(5, 1, [10, 99, 0, 2])
            .payload(&packet)
            .build();
    }
    let octets = |at: SocketAddr| match at {
        SocketAddr::V6(at) => at.ip().octets(),
        SocketAddr::V4(at) => at.ip().to_ipv6_mapped().octets(),
    };
    let mut body = [octets(at("[fe80::2]:0")), octets(destination)].concat();
    for option in options {
        body.extend(*option);
    }
    let units = u8::try_from(1 + packet.len() / 8).expect("a short packet");
    body.extend([4, units, 0, 0, 0, 0, 0, 0]);
    body.extend(&packet);
    eth()
        .between(ICMP_V6, at("[fe80::1]:0"), source)
        .icmp(137, 0, [0; 4])
        .payload(&body)
        .build()
}

/// The target's Ethernet address.
const TARGET: &[u8] = &[2, 1, 2, 0, 0, 0, 0, 9];
/// An option that nobody knows, of 16 bytes.
const UNKNOWN: &[u8] = &[200, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// One that must not be: it has no length.
const ENDLESS: &[u8] = &[200, 0, 0, 0, 0, 0, 0, 0];

fn talking(is_v6: bool) -> HostDatapath {
    let mut node = node();
    let (_, _) = node.enter(&request(eth(), is_v6, TCP).build());
    node
}

#[test]
fn a_redirect_about_a_translated_packet_goes_nowhere_on_either_side_of_the_node() {
    for is_v6 in [false, true] {
        let (client, frontend, backend) = (client(is_v6), frontend(is_v6), backend(is_v6));
        // The client's packet as it enters and as it goes on; the backend's answer likewise.
        for (source, destination) in [
            (client, frontend),
            (client, backend),
            (backend, client),
            (frontend, client),
        ] {
            for options in [&[][..], &[TARGET], &[UNKNOWN, TARGET]] {
                let bytes = redirect(source, destination, options);
                for hook in [Hook::Ingress, Hook::Egress] {
                    let mut packet = MemoryPacket::new(bytes.clone());
                    let verdict = talking(is_v6).pass(hook, &mut packet, Link::Ethernet);
                    let what = format!("{source} -> {destination} at {hook:?}");
                    assert_eq!(verdict, Verdict::Drop(DropReason::Redirect), "{what}");
                    assert_eq!(packet.bytes, bytes, "{what}");
                }
            }
        }
    }
    let counter = Verdict::Drop(DropReason::Redirect).counter();
    assert_eq!(counter, Some(Counter::DropRedirect));
}

#[test]
fn other_redirects_pass() {
    for is_v6 in [false, true] {
        let mut other = backend(is_v6);
        other.set_port(81);
        let mut messages = vec![redirect(client(is_v6), other, &[])];
        if is_v6 {
            // Ours, but nobody can tell: the quoted packet is behind more options than are looked at, or behind none.
            let ours = |options| redirect(client(true), frontend(true), options);
            messages.push(ours(&[UNKNOWN, UNKNOWN, UNKNOWN]));
            messages.push(ours(&[ENDLESS]));
            messages.push(ours(&[])[..14 + 40 + 40].to_vec());
        }
        for bytes in messages {
            for hook in [Hook::Ingress, Hook::Egress] {
                let mut node = talking(is_v6);
                let mut packet = MemoryPacket::new(bytes.clone());
                let verdict = node.pass(hook, &mut packet, Link::Ethernet);
                assert!(matches!(
                    verdict,
                    Verdict::Pass(PassReason::NotOurs | PassReason::OtherProtocol)
                ));
                assert_eq!(packet.bytes, bytes);
                let reply = eth().between(TCP, backend(is_v6), client(is_v6)).build();
                assert_eq!(node.leave(&reply).0, REPLY);
            }
        }
    }
}
