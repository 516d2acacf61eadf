//! No two flows and no connection of the node share a masquerade port.
use lb_common::{DeviceFlags, DropReason, FlowFlags, Port, Verdict};
use lb_ebpf::{bytes::parse::Link, context::environment::FlowTable};
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath::{HostDatapath, tuple},
    packets::dissect::{
        TCP, UDP,
        flag::{ACK, RST, SYN},
    },
    packets::generate::Hook,
};

use crate::{
    masquerade::{BACK, OUT, ends, lonely, node_address, own_port, packet, untouched},
    talk::{frontend, pod},
};

/// A node with a masquerade at port 2000.
fn masqueraded(protocol: u8) -> HostDatapath {
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(protocol, own_port(), frontend(), SYN));
    assert_eq!(ends(&node.leave(&routed).1).0, node_address(2000));
    node
}

/// What becomes of a new client's request if every port has a masquerade with these flags.
fn with_all_ports_taken(flags: FlowFlags) -> (HostDatapath, Verdict, Vec<u8>) {
    let (_, theirs) = masqueraded(TCP)
        .remembered(TCP, pod(1), node_address(2000))
        .expect("a masquerade");
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    for port in 1..=u16::MAX {
        let taken = tuple(TCP, pod(1), node_address(port)).expect("IPv4");
        let mut theirs = theirs;
        theirs.flags = flags;
        theirs.port = Port::new(3000);
        node.tables.v4.proven.put(taken, theirs);
    }
    let (verdict, delivered) = node.leave(&routed);
    (node, verdict, delivered)
}

#[test]
fn the_port_of_a_closed_flow_is_reused_and_that_of_a_flow_in_use_is_not() {
    let reset = FlowFlags::MASQUERADE.with(FlowFlags::RST);
    let (mut node, verdict, delivered) = with_all_ports_taken(reset);
    assert_eq!(verdict, OUT);
    let port = ends(&delivered).0.port();
    let (verdict, routed) = node.enter(&packet(TCP, pod(1), node_address(port), SYN | ACK));
    assert_eq!((verdict, ends(&routed).1), (BACK, own_port()));

    let (_, verdict, _) = with_all_ports_taken(FlowFlags::MASQUERADE);
    assert_eq!(verdict, Verdict::Drop(DropReason::NoMasqueradePort));
}

#[test]
fn the_port_of_a_socket_of_the_node_is_not_taken() {
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    let mut packet = MemoryPacket::new(routed);
    packet.sockets = [node_address(2000)].into();
    assert_eq!(node.pass(Hook::Egress, &mut packet, Link::Ethernet), OUT);
    assert_ne!(ends(&packet.bytes).0, node_address(2000));
}

#[test]
fn a_connection_of_the_node_with_the_port_of_a_masquerade_gets_another_one() {
    for protocol in [TCP, UDP] {
        let mut node = masqueraded(protocol);
        let (verdict, delivered) = node.leave(&packet(protocol, node_address(2000), pod(1), SYN));
        assert_eq!(verdict, OUT);
        let (source, destination) = ends(&delivered);
        assert_eq!((source.ip(), destination), (node_address(0).ip(), pod(1)));
        assert_ne!(source.port(), 2000);
        // Its answers and those of the masqueraded client are told apart.
        for (port, receiver) in [(source.port(), node_address(2000)), (2000, own_port())] {
            let answer = packet(protocol, pod(1), node_address(port), SYN | ACK);
            let (verdict, routed) = node.enter(&answer);
            assert_eq!((verdict, ends(&routed).1), (BACK, receiver));
        }
        let (table, _) = node.remembered(protocol, pod(1), source).unwrap();
        assert_eq!(table, FlowTable::Proven, "an answer proves it");
        let (verdict, again) = node.leave(&packet(protocol, node_address(2000), pod(1), ACK));
        assert_eq!((verdict, ends(&again).0), (OUT, source));
    }
}

#[test]
fn a_closed_masquerade_is_removed_for_a_connection_of_the_node() {
    let mut node = masqueraded(TCP);
    let reset = packet(TCP, pod(1), node_address(2000), RST);
    assert_eq!(node.enter(&reset).0, BACK);
    let own = packet(TCP, node_address(2000), pod(1), SYN);
    assert_eq!(node.leave(&own), untouched(&own));
    assert_eq!(node.remembered(TCP, pod(1), node_address(2000)), None);
    assert_eq!(node.remembered(TCP, own_port(), frontend()), None);
}

#[test]
fn below_another_attached_device_a_masqueraded_packet_is_no_connection_of_the_node() {
    let mut node = masqueraded(TCP);
    let device = node.tables.devices.get_mut(&1).unwrap();
    device.flags = DeviceFlags::LOWER;
    let own = packet(TCP, node_address(2000), pod(1), SYN);
    assert_eq!(node.leave(&own), untouched(&own));
}
