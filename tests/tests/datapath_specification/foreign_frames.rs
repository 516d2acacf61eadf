//! Frames with the Ethernet address of another machine, which a switch floods or a bridge forwards.
use lb_common::{Counter, DeviceEntry, DropReason, PassReason, Verdict};
use lb_ebpf::bytes::parse::Link;
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath::HostDatapath,
    packets::{
        dissect::{TCP, UDP},
        generate::Hook,
        packet_builder::eth,
    },
};

use crate::{
    admission,
    fixture::{self, REQUEST},
};

const BRIDGE_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 9];
const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

/// A frame with this destination enters by interface 1, which has another address.
fn enter(node: &mut HostDatapath, bytes: &[u8], ethernet: [u8; 6]) -> (Verdict, Vec<u8>) {
    let mut packet = MemoryPacket::new(bytes.to_vec());
    packet.bytes[..6].copy_from_slice(&ethernet);
    packet.is_for_another_machine = true;
    let verdict = node.pass(Hook::Ingress, &mut packet, Link::Ethernet);
    (verdict, packet.bytes)
}

fn with_bridge_port(mut node: HostDatapath) -> HostDatapath {
    let port = DeviceEntry {
        bridge: 9,
        bridge_address: BRIDGE_ADDRESS,
        ..DeviceEntry::default()
    };
    node.tables.devices.insert(1, port);
    node
}

#[test]
fn they_are_neither_translated_nor_remembered() {
    for (name, mut node) in [
        ("no bridge", fixture::node()),
        ("a port of a bridge", with_bridge_port(fixture::node())),
    ] {
        for (is_v6, protocol) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
            let frame = fixture::request(eth(), is_v6, protocol).build();
            let (verdict, bytes) = enter(&mut node, &frame, [2, 0, 0, 0, 0, 7]);
            assert_eq!((verdict, &bytes[6..]), (NOT_OURS, &frame[6..]), "{name}");
            assert!(node.tables.v4.opening.is_empty() && node.tables.v6.opening.is_empty());
            // Not even if the flow is known, because the same client has come by this node before.
            assert_eq!(node.enter(&frame).0, REQUEST, "{name}");
            let (verdict, _) = enter(&mut node, &frame, [2, 0, 0, 0, 0, 7]);
            assert_eq!(verdict, NOT_OURS, "{name}");
            node.tables.v4.opening = fixture::node().tables.v4.opening;
            node.tables.v6.opening = fixture::node().tables.v6.opening;
        }
        assert_eq!(node.tables.counted(Counter::FlowsOpened), 4);
    }
}

#[test]
fn with_the_address_of_the_bridge_they_are_for_this_node() {
    let mut node = with_bridge_port(fixture::node());
    let frame = fixture::request(eth(), false, TCP).build();
    assert_eq!(enter(&mut node, &frame, BRIDGE_ADDRESS).0, REQUEST);
}

#[test]
fn nobody_is_refused_at_a_services_unknown_port() {
    let mut node = admission::node(admission::Said::Refuses, true);
    let to = fixture::at("10.96.0.1:81");
    let frame = eth().between(TCP, fixture::client(false), to).syn().build();
    let refused = Verdict::Drop(DropReason::NoSuchPort);
    assert_eq!(node.enter(&frame).0, refused);
    assert_eq!(enter(&mut node, &frame, [2, 0, 0, 0, 0, 7]).0, NOT_OURS);
}
