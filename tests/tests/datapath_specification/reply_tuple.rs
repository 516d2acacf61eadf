//! Whose replies are whose: what a new flow may take, and what it must leave to others.
use std::net::SocketAddr;

use lb_common::{DropReason, FlowEntry, FrontendFlags, FrontendKey, Port, Tuple, V4, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::{HostDatapath, tuple},
    packets::dissect::{
        TCP,
        flag::{ACK, SYN},
    },
    packets::packet_builder::eth,
};

use crate::{
    fixture::{REPLY, REQUEST, at},
    masquerade::OUT,
    source_port::{answer, ends, enter, other, two_services_with_a_pod},
    talk::{OTHER_WEB, WEB, client, established, frontend, other_frontend, pod, talk},
};

/// The source port that the second flow of port 1000 gets.
fn second_port() -> u16 {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    enter(&mut node, TCP, other_frontend(), SYN, 0).0.port()
}

/// A stranger's reply entry at the tuple of the pod and this port of the client.
fn occupy(node: &mut HostDatapath, table: FlowTable, port: u16) -> Tuple<V4> {
    let key = tuple(TCP, pod(1), client(port)).expect("IPv4").leaving();
    let (_, request) = node
        .remembered(TCP, client(1000), frontend())
        .expect("a flow");
    let stranger = FlowEntry {
        address: [10, 96, 0, 99].into(),
        port: Port::new(80),
        side: lb_common::FlowSide::Source.byte(),
        ..request
    };
    node.tables.v4.flows_mut(table).put(key, stranger);
    key
}

#[test]
fn two_ports_of_one_address_are_two_frontends() {
    let mut node = two_services_with_a_pod();
    let second = at("10.96.0.1:443");
    node.frontend(OTHER_WEB, TCP, second);
    assert_eq!(
        enter(&mut node, TCP, frontend(), SYN, 0),
        (client(1000), pod(1))
    );
    let (source, _) = enter(&mut node, TCP, second, SYN, 0);
    assert_ne!(source, client(1000));
    for (port, at) in [(1000, frontend()), (source.port(), second)] {
        let reply = answer(&mut node, TCP, port, SYN | ACK);
        assert_eq!(reply, (at, client(1000)));
    }
}

#[test]
fn a_source_port_that_was_given_to_one_flow_is_not_another_ones_by_itself() {
    let given = second_port();
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    let (first, _) = enter(&mut node, TCP, other_frontend(), SYN, 0);
    assert_eq!(first.port(), given);
    // The same client dials the same frontend from the very port that the other flow was given.
    let packet = eth()
        .between(TCP, client(given), other_frontend())
        .flags(SYN);
    let (verdict, bytes) = node.enter(&packet.build());
    let (source, destination) = ends(&bytes);
    assert_eq!((verdict, destination), (REQUEST, pod(1)));
    assert_ne!(source.port(), given);
    for (asked, dialled) in [(given, 1000), (source.port(), given)] {
        let packet = eth().between(TCP, pod(1), client(asked)).flags(SYN | ACK);
        let (verdict, bytes) = node.leave(&packet.build());
        let expected = (other_frontend(), client(dialled));
        assert_eq!((verdict, ends(&bytes)), (REPLY, expected));
    }
}

#[test]
fn a_flow_after_one_with_another_source_port_keeps_its_own() {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    enter(&mut node, TCP, other_frontend(), SYN, 0);
    let packet = eth().between(TCP, client(1001), frontend()).flags(SYN);
    let (_, bytes) = node.enter(&packet.build());
    assert_eq!(ends(&bytes), (client(1001), pod(1)));
}

#[test]
fn ports_are_tried_until_one_is_free_in_both_tables() {
    for table in [FlowTable::Opening, FlowTable::Proven] {
        let mut node = two_services_with_a_pod();
        assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
        let taken = occupy(&mut node, table, second_port());
        let theirs = node.tables.v4.flows(table).get(&taken);
        let (source, _) = enter(&mut node, TCP, other_frontend(), SYN, 0);
        assert_ne!(source.port(), second_port(), "{table:?}");
        assert_eq!(node.tables.v4.flows(table).get(&taken), theirs);
        let opening = node.tables.v4.opening.get(&taken).is_some();
        assert_eq!(opening, table == FlowTable::Opening, "a try stays behind");
    }
}

#[test]
fn where_nothing_can_be_stored_that_is_the_reason() {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    node.tables.v4.opening.evicts = false;
    node.tables.v4.opening.capacity = node.tables.v4.opening.len();
    let (verdict, _) = other(&mut node).ask_with(SYN, 0);
    assert_eq!(verdict, Verdict::Drop(DropReason::FlowNotStored));
}

#[test]
fn a_flow_whose_request_half_was_evicted_finds_its_own_reply_tuple_again() {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    let request = tuple(TCP, client(1000), frontend()).unwrap();
    node.tables.v4.opening.remove(&request).expect("a flow");
    let again = enter(&mut node, TCP, frontend(), SYN, 0);
    assert_eq!(again, (client(1000), pod(1)));
}

#[test]
fn a_proven_flow_keeps_its_reply_tuple_however_long_it_is_silent() {
    let mut node = two_services_with_a_pod();
    assert_eq!(established(&mut node, 1000), pod(1));
    node.tables.clock.advance(7200);
    let (source, _) = enter(&mut node, TCP, other_frontend(), SYN, 0);
    assert_ne!(source, client(1000));
    assert_eq!(talk(&mut node, TCP, 1000).ask(ACK), Some(pod(1)));
    assert_eq!(
        answer(&mut node, TCP, 1000, ACK),
        (frontend(), client(1000))
    );
}

/// Both frontends masquerade, and interface 1 has an address.
fn masqueraded() -> (HostDatapath, SocketAddr) {
    let mut node = two_services_with_a_pod();
    node.tables.devices.insert(
        1,
        lb_common::DeviceEntry {
            masquerade_v4: [192, 168, 0, 1].into(),
            ..Default::default()
        },
    );
    for at in [frontend(), other_frontend()] {
        let key = tuple(TCP, at, at).expect("IPv4");
        let key = FrontendKey::new(key.source, key.source_port, TCP);
        let entry = node.tables.v4.frontends.get_mut(&key).expect("a frontend");
        entry.flags = FrontendFlags::MASQUERADE;
    }
    let (source, _) = enter(&mut node, TCP, frontend(), SYN, 0);
    let routed = eth().between(TCP, source, pod(1)).flags(SYN);
    let (verdict, bytes) = node.leave(&routed.build());
    assert_eq!(verdict, OUT);
    (node, ends(&bytes).0)
}

#[test]
fn a_reply_tuple_that_is_taken_over_takes_the_old_masquerade_along() {
    let (mut node, shown) = masqueraded();
    node.tables.clock.advance(60);
    assert_eq!(
        enter(&mut node, TCP, other_frontend(), SYN, 0),
        (client(1000), pod(1))
    );
    let left = node.remembered(TCP, pod(1), shown);
    assert!(left.is_none(), "the old masquerade stays behind: {left:?}");
}

#[test]
fn a_request_half_that_a_reply_restores_is_masqueraded_and_served_as_before() {
    let (mut node, _) = masqueraded();
    let request = tuple(TCP, client(1000), frontend()).unwrap();
    let before = node.tables.v4.opening.remove(&request).expect("a flow");
    assert_eq!(
        answer(&mut node, TCP, 1000, SYN | ACK),
        (frontend(), client(1000))
    );
    let restored = node.tables.v4.opening.get(&request).expect("restored");
    assert!(restored.flags.has(before.flags), "{:?}", restored.flags);
    assert_eq!(restored.service_id, before.service_id);
    assert_eq!(restored.service_id, WEB);
}

#[test]
fn a_flow_that_ends_leaves_a_reply_tuple_to_the_flow_that_has_it_by_now() {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    // Its reply half is evicted, and a flow of the other frontend gets the tuple.
    let reply = tuple(TCP, pod(1), client(1000)).unwrap().leaving();
    node.tables.v4.opening.remove(&reply).expect("a flow");
    let second = enter(&mut node, TCP, other_frontend(), SYN, 0);
    assert_eq!(second, (client(1000), pod(1)));
    // The first flow's backend leaves the service: its next SYN chooses anew.
    for backend in node.tables.v4.backends.values_mut() {
        if backend.service_id == WEB {
            backend.state = lb_common::BackendState::Draining as u8;
        }
    }
    let (verdict, _) = talk(&mut node, TCP, 1000).ask_with(SYN, 0);
    assert_ne!(verdict, REQUEST);
    let reply = answer(&mut node, TCP, 1000, SYN | ACK);
    assert_eq!(reply, (other_frontend(), client(1000)));
}
