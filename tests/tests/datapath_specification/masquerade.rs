//! A pod that reaches itself through its service, and pods behind one bridge.
use std::net::SocketAddr;

use lb_common::{DeviceEntry, DropReason, FlowFlags, PassReason, Translation, Verdict};
use lb_ebpf::{bytes::parse::Link, context::environment::FlowTable};
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath::{HostDatapath, tuple},
    packets::dissect::{
        TCP, UDP, assert_checksums, dissect,
        flag::{ACK, FIN, RST, SYN},
    },
    packets::generate::Hook,
    packets::packet_builder::{eth, ip},
};

use crate::{
    fixture::{REPLY, REQUEST, at},
    talk::{DNS, WEB, frontend, node, other_frontend, pod},
};

pub(crate) const OUT: Verdict = Verdict::Translated(Translation::MasqueradedRequest);
pub(crate) const BACK: Verdict = Verdict::Translated(Translation::MasqueradedReply);

pub(crate) fn own_port() -> SocketAddr {
    SocketAddr::new(pod(1).ip(), 2000)
}
pub(crate) fn node_address(port: u16) -> SocketAddr {
    SocketAddr::new(at("10.1.0.1:0").ip(), port)
}

/// Pod 1 is the only backend, and interface 1 has an address.
pub(crate) fn lonely() -> HostDatapath {
    let mut node = node();
    node.candidates(WEB, &[11]);
    node.candidates(DNS, &[21]);
    let device = DeviceEntry {
        masquerade_v4: [10, 1, 0, 1].into(),
        ..DeviceEntry::default()
    };
    node.tables.devices.insert(1, device);
    node
}

pub(crate) fn packet(
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
) -> Vec<u8> {
    eth()
        .between(protocol, source, destination)
        .flags(flags)
        .build()
}
pub(crate) fn ends(bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    assert_checksums(bytes, Link::Ethernet);
    let packet = dissect(bytes, Link::Ethernet).expect("a packet");
    (packet.source, packet.destination)
}
pub(crate) fn untouched(bytes: &[u8]) -> (Verdict, Vec<u8>) {
    (Verdict::Pass(PassReason::NotOurs), bytes.to_vec())
}

#[test]
fn a_pod_that_dials_its_own_service_sees_the_node_and_then_the_frontend() {
    for protocol in [TCP, UDP] {
        let mut node = lonely();
        let (verdict, routed) = node.enter(&packet(protocol, own_port(), frontend(), SYN));
        assert_eq!(verdict, REQUEST);
        assert_eq!(ends(&routed), (own_port(), pod(1)));
        let (verdict, delivered) = node.leave(&routed);
        assert_eq!(verdict, OUT);
        assert_eq!(
            ends(&delivered),
            (node_address(2000), pod(1)),
            "the client's port, if it is free"
        );

        let reply = packet(protocol, pod(1), node_address(2000), SYN | ACK);
        let (verdict, routed) = node.enter(&reply);
        assert_eq!(verdict, BACK);
        assert_eq!(ends(&routed), (pod(1), own_port()));
        let (verdict, delivered) = node.leave(&routed);
        assert_eq!(verdict, REPLY);
        assert_eq!(ends(&delivered), (frontend(), own_port()));
    }
}

#[test]
fn a_pod_that_gets_another_backend_is_not_masqueraded() {
    let mut node = lonely();
    node.candidates(WEB, &[12]);
    let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    assert_eq!(ends(&routed), (own_port(), pod(2)));
    assert_eq!(node.leave(&routed), untouched(&routed));
}

#[test]
fn a_masquerade_keeps_its_port_for_the_whole_conversation_and_is_proven_with_it() {
    let mut node = lonely();
    let mut through = |bytes: Vec<u8>| {
        let (_, routed) = node.enter(&bytes);
        let (_, delivered) = node.leave(&routed);
        ends(&delivered)
    };
    assert_eq!(
        through(packet(TCP, own_port(), frontend(), SYN)).0,
        node_address(2000)
    );
    let answer = eth()
        .between(TCP, pod(1), node_address(2000))
        .syn_ack()
        .sequence(900)
        .build();
    assert_eq!(through(answer), (frontend(), own_port()));
    for _ in 0..3 {
        let proof = eth()
            .between(TCP, own_port(), frontend())
            .acknowledge(901)
            .build();
        assert_eq!(through(proof), (node_address(2000), pod(1)));
    }
    for (source, destination) in [
        (own_port(), frontend()),
        (pod(1), own_port()),
        (own_port(), pod(1)),
        (pod(1), node_address(2000)),
    ] {
        let table = node
            .remembered(TCP, source, destination)
            .map(|(table, _)| table);
        assert_eq!(table, Some(FlowTable::Proven), "{source} -> {destination}");
    }
    assert!(node.tables.v4.opening.is_empty());
}

#[test]
fn a_port_that_is_taken_is_replaced_by_one_of_the_nodes_own() {
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    // Somebody else talks to the pod from the node's address and that very port.
    let taken = tuple(TCP, pod(1), node_address(2000)).unwrap();
    let (_, theirs) = node.remembered(TCP, own_port(), frontend()).unwrap();
    node.tables.v4.proven.put(taken, theirs);
    let (verdict, delivered) = node.leave(&routed);
    assert_eq!(verdict, OUT);
    let port = ends(&delivered).0.port();
    assert!((1024..30_000).contains(&port) || port >= 61_000, "{port}");
    let (_, again) = node.leave(&routed);
    assert_eq!(ends(&again).0.port(), port, "the next packet has the same");
    let (verdict, routed) = node.enter(&packet(TCP, pod(1), node_address(port), SYN | ACK));
    assert_eq!((verdict, ends(&routed).1), (BACK, own_port()));
}

#[test]
fn masquerade_ports_come_from_the_whole_range() {
    let ports = (0..400).map(|seed| {
        let mut node = lonely();
        node.tables.clock = tests::memory_clock::MemoryClock::new(seed);
        let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
        let (_, theirs) = node
            .remembered(TCP, own_port(), frontend())
            .expect("a flow");
        let taken = tuple(TCP, pod(1), node_address(2000)).expect("IPv4");
        node.tables.v4.proven.put(taken, theirs);
        let (_, delivered) = node.leave(&routed);
        ends(&delivered).0.port()
    });
    let ports: Vec<u16> = ports.collect();
    let low = ports
        .iter()
        .filter(|port| (1024..30_000).contains(*port))
        .count();
    let high = ports.iter().filter(|port| **port >= 61_000).count();
    assert_eq!(low + high, ports.len(), "{ports:?}");
    // 28,976 low ports and 4,536 high ones: about one in seven is high.
    assert!(
        (20..110).contains(&high),
        "{high} of {} are high",
        ports.len()
    );
}

#[test]
fn without_an_address_or_a_port_nothing_goes_out() {
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    node.tables.devices.clear();
    let dropped = |reason| (Verdict::Drop(reason), routed.clone());
    assert_eq!(
        node.leave(&routed),
        dropped(DropReason::NoMasqueradeAddress),
        "unknown device"
    );
    node.tables.devices.insert(1, DeviceEntry::default());
    assert_eq!(
        node.leave(&routed),
        dropped(DropReason::NoMasqueradeAddress),
        "no address"
    );

    let mut node = lonely();
    let (_, _) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    let (_, theirs) = node.remembered(TCP, own_port(), frontend()).unwrap();
    for port in 1..=u16::MAX {
        let taken = tuple(TCP, pod(1), node_address(port)).unwrap();
        node.tables.v4.proven.put(taken, theirs);
    }
    assert_eq!(
        node.leave(&routed),
        dropped(DropReason::NoMasqueradePort),
        "all ports taken"
    );
}

#[test]
fn a_hairpin_that_is_over_takes_its_masquerade_along() {
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    let (_, _) = node.leave(&routed);
    let (_, _) = node.leave(&packet(TCP, pod(1), own_port(), RST));
    node.candidates(WEB, &[12]);
    let (verdict, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    assert_eq!((verdict, ends(&routed).1), (REQUEST, pod(2)));
    let direct = packet(TCP, own_port(), pod(1), SYN);
    assert_eq!(
        node.leave(&direct),
        untouched(&direct),
        "a direct connection from the same port"
    );
}

#[test]
fn a_hairpin_through_another_frontend_uses_the_masquerade_that_is_there() {
    let mut node = lonely();
    for (through, flags) in [(frontend(), SYN), (other_frontend(), SYN)] {
        let (verdict, routed) = node.enter(&packet(TCP, own_port(), through, flags));
        assert_eq!(verdict, REQUEST, "through {through}");
        assert_eq!(
            ends(&node.leave(&routed).1).0,
            node_address(2000),
            "through {through}"
        );
        let proof = eth()
            .between(TCP, pod(1), own_port())
            .syn_ack()
            .sequence(900)
            .build();
        assert_eq!(node.leave(&proof).0, REPLY);
        let proof = eth()
            .between(TCP, own_port(), through)
            .acknowledge(901)
            .build();
        let (_, routed) = node.enter(&proof);
        assert_eq!(node.leave(&routed).0, OUT);
        let (_, _) = node.leave(&packet(TCP, pod(1), own_port(), RST));
    }
    let key = tuple(TCP, own_port(), pod(1)).unwrap().leaving();
    let tables = [FlowTable::Proven, FlowTable::Opening];
    let places = tables.map(|table| node.tables.v4.flows(table).get(&key).is_some());
    assert_eq!(places, [true, false], "one entry of the tuple, in FLOWS");
}

#[test]
fn the_first_masqueraded_packet_leaves_its_own_trace() {
    let mut node = lonely();
    let (_, _) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    let (_, _) = node.leave(&packet(TCP, own_port(), pod(1), FIN | ACK));
    let (_, entry) = node.remembered(TCP, own_port(), pod(1)).unwrap();
    assert!(entry.flags.has(FlowFlags::FIN), "the FIN is lost");
}

/// Interface 1 is a port of bridge 9.
fn bridged() -> HostDatapath {
    let mut node = lonely();
    let device = node.tables.devices.get_mut(&1).expect("it is there");
    device.bridge = 9;
    node
}
const NEIGHBOUR: [u8; 6] = [2, 9, 9, 9, 9, 9];

#[test]
fn a_backend_behind_the_same_bridge_is_addressed_on_ethernet_too() {
    let client = at("10.244.0.9:1000");
    for (behind, is_ethernet, client, expected) in [
        (Some(pod(1)), true, client, true),
        (None, true, client, false),
        (Some(pod(2)), true, client, false),
        (Some(pod(1)), false, client, false),
        (Some(pod(1)), true, own_port(), false),
    ] {
        let builder = if is_ethernet { eth() } else { ip() };
        let before = builder.between(TCP, client, frontend()).syn().build();
        let link = if is_ethernet {
            Link::Ethernet
        } else {
            Link::Ip
        };
        let mut node = bridged();
        for what in ["the first packet", "the next"] {
            let mut packet = MemoryPacket::new(before.clone());
            packet
                .neighbours
                .extend(behind.map(|pod| ((9, pod.ip()), NEIGHBOUR)));
            assert_eq!(node.pass(Hook::Ingress, &mut packet, link), REQUEST);
            let is_rewritten = packet.bytes[..6] == NEIGHBOUR;
            assert_eq!(
                is_rewritten, expected,
                "{what} of {client}, {behind:?} behind the bridge"
            );
            if !expected && is_ethernet {
                assert_eq!(packet.bytes[..6], before[..6]);
            }
        }
    }
}

/// The node's own connections to the pod may come from such a port.
#[test]
fn a_client_with_an_ephemeral_or_a_privileged_port_gets_another() {
    for port in [22, 1023, 30_000, 32_768, 45_678, 60_999] {
        let mut node = lonely();
        let client = SocketAddr::new(pod(1).ip(), port);
        let (_, routed) = node.enter(&packet(TCP, client, frontend(), SYN));
        let (verdict, delivered) = node.leave(&routed);
        assert_eq!(verdict, OUT);
        let (source, _) = ends(&delivered);
        assert_eq!(source.ip(), node_address(0).ip());
        let given = source.port();
        assert!(
            (1024..30_000).contains(&given) || given >= 61_000,
            "{given}"
        );
        let answer = packet(TCP, pod(1), source, SYN | ACK);
        let (verdict, back) = node.enter(&answer);
        assert_eq!((verdict, ends(&back)), (BACK, (pod(1), client)));
    }
}
