//! Replies on a node whose routing rules tell sources apart.
use lb_common::{DeviceEntry, DeviceFlags};
use lb_ebpf::bytes::parse::Link;
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath::HostDatapath,
    packets::{
        dissect::{
            TCP, UDP,
            flag::{ACK, SYN},
        },
        generate::Hook,
        packet_builder::eth,
    },
};

use crate::{
    fixture::{REPLY, REQUEST},
    talk::{self, client, frontend, pod},
};

/// A reply of a pod leaves by interface 1: the device that it goes to in its place, if frontends' addresses are routed to `next`.
fn leaves_by(node: &mut HostDatapath, protocol: u8, next: u32) -> Option<u32> {
    let from = if protocol == TCP {
        talk::talk(node, TCP, 1000).ask(SYN)
    } else {
        talk::talk(node, UDP, 1000).ask(0)
    };
    let from = from.expect("a backend");
    let bytes = eth()
        .between(protocol, from, client(1000))
        .flags(ACK)
        .build();
    let mut packet = MemoryPacket::new(bytes);
    packet.routes_from.insert(frontend().ip(), next);
    packet.routes_from.insert(pod(1).ip(), 99);
    assert_eq!(node.pass(Hook::Egress, &mut packet, Link::Ethernet), REPLY);
    packet.redirected
}

fn at(flags: DeviceFlags, bridge: u32) -> HostDatapath {
    let mut node = talk::node();
    let device = DeviceEntry {
        flags,
        bridge,
        ..DeviceEntry::default()
    };
    node.tables.devices.insert(1, device);
    node
}

#[test]
fn they_leave_by_the_device_that_the_frontends_address_is_routed_to() {
    for protocol in [TCP, UDP] {
        let routed = DeviceFlags::POLICY_ROUTED;
        assert_eq!(leaves_by(&mut at(routed, 0), protocol, 7), Some(7));
        assert_eq!(leaves_by(&mut at(routed, 0), protocol, 1), None, "it does");
        assert_eq!(
            leaves_by(&mut at(routed, 7), protocol, 7),
            None,
            "its bridge"
        );
        let mut node = at(DeviceFlags::NONE, 0);
        assert_eq!(leaves_by(&mut node, protocol, 7), None, "no rules");
    }
}

#[test]
fn a_proven_flow_keeps_its_way_and_routes_are_asked_for_each_reply() {
    let mut node = at(DeviceFlags::POLICY_ROUTED, 0);
    assert_eq!(leaves_by(&mut node, UDP, 7), Some(7));
    let (verdict, _) = talk::talk(&mut node, UDP, 1000).ask_with(0, 0);
    assert_eq!(
        verdict, REQUEST,
        "the client's second datagram proves the flow"
    );
    assert_eq!(leaves_by(&mut node, UDP, 8), Some(8));
    assert_eq!(leaves_by(&mut node, UDP, 1), None);
}
