//! Processes of the node whose packets come in by the node's device: they are translated like a pod's, leave with a port
//! that no process has, and their answers go back by that device.
use std::net::SocketAddr;

use lb_common::{DeviceEntry, DeviceFlags, FlowFlags, FrontendEntry, FrontendFlags, Verdict};
use lb_ebpf::{
    bytes::{packet::NOWHERE, parse::Link},
    context::environment::FlowTable,
};
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath::HostDatapath,
    packets::{
        dissect::{SCTP, TCP, UDP, assert_checksums, dissect},
        generate::Hook,
        packet_builder::{PacketBuilder, eth},
    },
};

use crate::{
    fixture::{REPLY, REQUEST},
    icmp_talk::ERROR,
    masquerade::{BACK, OUT},
    talk::{self, DNS, at, frontend, pod},
};

const NODE_DEVICE: u32 = 7;
const UPLINK: u32 = 1;
const OUTER: u32 = 8;

/// The node has the address that packets leave by the uplink with.
fn process(port: u16) -> SocketAddr {
    SocketAddr::new(at("10.1.0.1:0").ip(), port)
}

fn node() -> HostDatapath {
    let mut node = talk::node();
    let device = |flags, address: [u8; 4]| DeviceEntry {
        flags,
        masquerade_v4: address.into(),
        node_device: NODE_DEVICE,
        ..DeviceEntry::default()
    };
    let of_node = DeviceFlags::NODE.with(DeviceFlags::PODS);
    node.tables
        .devices
        .insert(NODE_DEVICE, device(of_node, [169, 254, 119, 103]));
    node.tables
        .devices
        .insert(UPLINK, device(DeviceFlags::NONE, [10, 1, 0, 1]));
    node
}

/// What became of a packet at a device.
struct Seen {
    verdict: Verdict,
    source: SocketAddr,
    destination: SocketAddr,
    redirected: Option<u32>,
    to_node: Option<u32>,
}

/// A packet of the node's own is routed to the uplink, unless its destination is the node itself.
fn pass(node: &mut HostDatapath, hook: Hook, device: u32, packet: &PacketBuilder) -> Seen {
    pass_routed(node, hook, device, packet, Some(UPLINK))
}

fn pass_routed(
    node: &mut HostDatapath,
    hook: Hook,
    device: u32,
    packet: &PacketBuilder,
    to: Option<u32>,
) -> Seen {
    let mut packet = MemoryPacket::new(packet.build()).at_interface(device);
    packet
        .routes_from
        .extend(to.map(|to| (process(0).ip(), to)));
    let verdict = node.pass(hook, &mut packet, Link::Ethernet);
    let seen = dissect(&packet.bytes, Link::Ethernet);
    if seen.as_ref().is_ok_and(|it| !it.is_fragment) {
        assert_checksums(&packet.bytes, Link::Ethernet);
    }
    let (source, destination) = seen.map_or((at("0.0.0.0:0"), at("0.0.0.0:0")), |it| {
        (it.source, it.destination)
    });
    Seen {
        verdict,
        source,
        destination,
        redirected: packet.redirected,
        to_node: packet.redirected_to_node,
    }
}

fn between(source: SocketAddr, destination: SocketAddr) -> PacketBuilder {
    eth().between(UDP, source, destination).payload(b"question")
}

/// A question on its way out: the process's port on the way, what the backend sees, and the backend.
fn ask(node: &mut HostDatapath, port: u16) -> (SocketAddr, SocketAddr, SocketAddr) {
    let question = between(process(port), frontend());
    let seen = pass(node, Hook::Ingress, NODE_DEVICE, &question);
    assert_eq!((seen.verdict, seen.redirected), (REQUEST, Some(UPLINK)));
    assert_eq!(seen.to_node, None);
    let (inner, backend) = (seen.source, seen.destination);
    let seen = pass(node, Hook::Egress, UPLINK, &between(inner, backend));
    assert_eq!((seen.verdict, seen.destination), (OUT, backend));
    (inner, seen.source, backend)
}

#[test]
fn a_backend_that_the_device_leads_to_gets_nothing() {
    let mut node = node();
    let outer = DeviceEntry {
        flags: DeviceFlags::NODE_OUTER,
        ..DeviceEntry::default()
    };
    node.tables.devices.insert(OUTER, outer);
    let question = between(process(5000), frontend());
    let hook = Hook::Ingress;
    let seen = pass_routed(&mut node, hook, NODE_DEVICE, &question, Some(OUTER));
    assert_eq!((seen.redirected, seen.to_node), (Some(NOWHERE), None));
}

#[test]
fn a_conversation_goes_out_by_the_route_and_comes_back_by_the_device() {
    let mut node = node();
    for round in 0..3 {
        let (inner, outer, backend) = ask(&mut node, 40_000);
        assert_ne!(inner.port(), 40_000, "what it sends itself has that port");
        assert_eq!(inner.ip(), process(0).ip());
        assert_eq!(outer.ip(), process(0).ip());
        let answer = between(backend, outer);
        let seen = pass(&mut node, Hook::Ingress, UPLINK, &answer);
        assert_eq!((seen.verdict, seen.to_node), (BACK, Some(NODE_DEVICE)));
        assert_eq!((seen.source, seen.destination), (backend, inner));
        assert_eq!(seen.redirected, None);
        let answer = between(backend, inner);
        let seen = pass(&mut node, Hook::Egress, NODE_DEVICE, &answer);
        assert_eq!(seen.verdict, REPLY, "round {round}");
        assert_eq!(
            (seen.source, seen.destination),
            (frontend(), process(40_000))
        );
    }
    let (table, entry) = node
        .remembered(UDP, process(40_000), frontend())
        .expect("a flow");
    assert_eq!(table, FlowTable::Proven, "it was answered, and asked again");
    assert!(entry.flags.has(FlowFlags::NODE));
}

#[test]
fn what_a_process_sends_to_the_backend_itself_is_not_taken_for_the_services() {
    let mut node = node();
    let (_, _, backend) = ask(&mut node, 40_000);
    let seen = pass(
        &mut node,
        Hook::Egress,
        UPLINK,
        &between(process(40_000), backend),
    );
    assert!(
        matches!(seen.verdict, Verdict::Pass(_)),
        "{:?}",
        seen.verdict
    );
    let seen = pass(
        &mut node,
        Hook::Ingress,
        UPLINK,
        &between(backend, process(40_000)),
    );
    assert!(
        matches!(seen.verdict, Verdict::Pass(_)),
        "{:?}",
        seen.verdict
    );
    assert_eq!(seen.to_node, None);
}

#[test]
fn a_backend_that_is_a_process_of_the_node_gets_the_packet_by_the_device() {
    let mut node = node();
    let question = between(process(40_000), frontend());
    let seen = pass_routed(&mut node, Hook::Ingress, NODE_DEVICE, &question, None);
    assert_eq!((seen.verdict, seen.to_node), (REQUEST, Some(NODE_DEVICE)));
    let (inner, backend) = (seen.source, seen.destination);
    let seen = pass(
        &mut node,
        Hook::Egress,
        NODE_DEVICE,
        &between(inner, backend),
    );
    assert_eq!(seen.verdict, OUT);
    assert_eq!(seen.source.ip(), at("169.254.119.103:0").ip());
    let answer = between(backend, seen.source);
    let seen = pass(&mut node, Hook::Ingress, NODE_DEVICE, &answer);
    assert_eq!((seen.verdict, seen.to_node), (BACK, Some(NODE_DEVICE)));
    let answer = between(backend, seen.destination);
    let seen = pass(&mut node, Hook::Egress, NODE_DEVICE, &answer);
    assert_eq!(seen.verdict, REPLY);
    assert_eq!(
        (seen.source, seen.destination),
        (frontend(), process(40_000))
    );
}

#[test]
fn errors_and_all_pieces_of_a_datagram_take_the_same_way() {
    let mut node = node();
    let (inner, outer, backend) = ask(&mut node, 40_000);
    let quoted = tests::packets::packet_builder::ip()
        .between(UDP, outer, backend)
        .payload(b"question")
        .build();
    let error = eth()
        .between(TCP, backend, outer)
        .icmp(3, 3, [0; 4])
        .payload(&quoted);
    let seen = pass(&mut node, Hook::Ingress, UPLINK, &error);
    assert_eq!((seen.verdict, seen.to_node), (ERROR, Some(NODE_DEVICE)));
    let first = between(backend, outer).identification(9).fragment(0, true);
    let seen = pass(&mut node, Hook::Ingress, UPLINK, &first);
    assert_eq!((seen.verdict, seen.to_node), (BACK, Some(NODE_DEVICE)));
    // The node has one address: at the device the datagram has the same ends, and is translated at its other side.
    let first = between(backend, inner).identification(9).fragment(0, true);
    let seen = pass(&mut node, Hook::Egress, NODE_DEVICE, &first);
    assert_eq!((seen.verdict, seen.source), (REPLY, frontend()));
    let later = || {
        let piece = eth().between(UDP, backend, outer).other(UDP);
        piece.identification(9).payload(&[7; 8]).fragment(16, false)
    };
    let seen = pass(&mut node, Hook::Ingress, UPLINK, &later());
    assert!(
        matches!(seen.verdict, Verdict::Translated(_)),
        "{:?}",
        seen.verdict
    );
    assert_eq!(seen.to_node, Some(NODE_DEVICE));
    let seen = pass(&mut node, Hook::Egress, NODE_DEVICE, &later());
    assert!(
        matches!(seen.verdict, Verdict::Translated(_)),
        "{:?}",
        seen.verdict
    );
}

#[test]
fn sctp_of_a_process_is_translated_like_udp() {
    let mut node = node();
    node.frontend(9, SCTP, frontend());
    node.backend(99, 9, pod(1), lb_common::BackendState::Active);
    node.candidates(9, &[99]);
    let packet = eth().between(SCTP, process(40_000), frontend()).syn();
    let seen = pass(&mut node, Hook::Ingress, NODE_DEVICE, &packet);
    assert_eq!((seen.verdict, seen.destination), (REQUEST, pod(1)));
    assert_eq!(seen.redirected, Some(UPLINK));
}

#[test]
fn all_processes_are_one_client_for_affinity() {
    let mut node = node();
    node.stay(DNS, 600);
    let mut met = std::collections::BTreeSet::new();
    for port in 40_000..40_050 {
        met.insert(ask(&mut node, port).2);
    }
    assert_eq!(met.len(), 1, "{met:?}");
    let of_node = lb_common::Ipv4Address::from([0, 0, 0, 0]);
    let mut clients = node.tables.v4.affinities.keys();
    assert!(clients.all(|key| key.client == of_node));
}

#[test]
fn a_socket_leaves_udp_to_the_device_and_takes_tcp_itself() {
    for (protocol, is_left) in [(UDP, true), (TCP, false)] {
        let mut node = talk::node();
        for entry in node.tables.v4.frontends.values_mut() {
            let FrontendEntry { service_id, flags } = *entry;
            *entry = FrontendEntry {
                service_id,
                flags: flags.with(FrontendFlags::AT_NODE_DEVICE),
            };
        }
        node.candidates(DNS, &[]);
        let target = crate::socket::dials(&mut node, protocol, frontend());
        assert_eq!(target.is_none(), is_left, "{protocol}");
    }
}
