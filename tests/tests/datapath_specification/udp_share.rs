//! What room UDP may take among the proven flows: none that connections need.
use std::net::SocketAddr;

use lb_common::Counter;
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{TCP, UDP, dissect},
    packets::packet_builder::eth,
};

use crate::{
    fixture::{self, REPLY, REQUEST},
    masquerade::{OUT, lonely, packet},
    talk::{DNS, client, established, frontend, node, pod, talk},
};

/// A UDP client that goes on after an answer; whether its flow is proven then.
fn proves(node: &mut HostDatapath, port: u16) -> bool {
    let mut talk = talk(node, UDP, port);
    let pod = talk.ask(0).expect("a backend");
    assert_eq!(talk.answer(pod, 0), REPLY);
    assert_eq!(
        talk.ask(0),
        Some(pod),
        "it works, wherever it is remembered"
    );
    talk.table() == Some(FlowTable::Proven)
}

#[test]
fn udp_flows_take_their_share_of_flows_and_no_more() {
    let mut node = node();
    node.tables.config.udp_flow_entries = 10;
    let proven = (1000..1010).filter(|port| proves(&mut node, *port)).count();
    assert_eq!(proven, 5, "two entries each");
    assert_eq!(node.tables.v4.proven.len(), 10);
    assert_eq!(node.tables.counted(Counter::FlowsTableFull), 0);
    established(&mut node, 2000);
    assert_eq!(node.tables.v4.proven.len(), 12, "connections find room");
    // The others go on among the opening flows, and move when there is room again.
    *node.tables.udp_entries::<lb_common::V4>() = 8;
    assert_eq!(talk(&mut node, UDP, 1009).table(), Some(FlowTable::Opening));
    assert!(talk(&mut node, UDP, 1009).ask(0).is_some());
    assert_eq!(talk(&mut node, UDP, 1009).table(), Some(FlowTable::Proven));
}

#[test]
fn a_udp_flow_that_finds_flows_full_gives_its_share_back() {
    let mut node = node();
    node.tables.v4.proven.capacity = 0;
    assert!(!proves(&mut node, 1000));
    assert_eq!(*node.tables.udp_entries::<lb_common::V4>(), 0);
}

#[test]
fn a_masqueraded_udp_flow_counts_for_the_entries_of_its_masquerade_too() {
    for (share, is_proven) in [(3, false), (4, true)] {
        let mut node = lonely();
        node.candidates(DNS, &[21]);
        node.tables.config.udp_flow_entries = share;
        let own = SocketAddr::new(pod(1).ip(), 2000);
        let ask = |node: &mut HostDatapath| {
            let (verdict, routed) = node.enter(&packet(UDP, own, frontend(), 0));
            assert_eq!(verdict, REQUEST);
            let (verdict, delivered) = node.leave(&routed);
            assert_eq!(verdict, OUT);
            let ends = dissect(&delivered, lb_ebpf::bytes::parse::Link::Ethernet);
            ends.expect("a packet").source
        };
        let shown = ask(&mut node);
        let (_, back) = node.enter(&packet(UDP, pod(1), shown, 0));
        assert_eq!(node.leave(&back).0, REPLY);
        ask(&mut node);
        let (table, _) = node.remembered(UDP, own, frontend()).expect("a flow");
        assert_eq!(table == FlowTable::Proven, is_proven, "share {share}");
        let taken = *node.tables.udp_entries::<lb_common::V4>();
        assert_eq!(taken, if is_proven { 4 } else { 0 });
        ask(&mut node);
        assert_eq!(node.tables.v4.proven.len(), taken as usize);
    }
}

#[test]
fn an_ipv6_client_is_a_network_of_64_bits() {
    let mut node = fixture::node();
    node.tables.config.udp_flows_per_client = 5;
    let mut proven = |network: &str| {
        let clients = (1..=10).map(|host| fixture::at(&format!("[{network}::{host}]:1000")));
        clients
            .filter(|client| {
                let ask = eth().between(UDP, *client, fixture::frontend(true)).build();
                let answer = eth().between(UDP, fixture::backend(true), *client).build();
                assert_eq!(node.enter(&ask).0, REQUEST);
                assert_eq!(node.leave(&answer).0, REPLY);
                let before = node.tables.v6.proven.len();
                assert_eq!(node.enter(&ask).0, REQUEST);
                node.tables.v6.proven.len() > before
            })
            .count()
    };
    assert_eq!(proven("fd00:7:0:1"), 5);
    assert_eq!(proven("fd00:7:0:2"), 5, "another network is another client");
}

#[test]
fn connections_take_nothing_of_the_share() {
    let mut node = node();
    node.tables.config.udp_flow_entries = 0;
    for port in 1000..1003 {
        established(&mut node, port);
    }
    assert!(!proves(&mut node, 1000));
    let (table, _) = node
        .remembered(TCP, client(1000), frontend())
        .expect("a flow");
    assert_eq!(table, FlowTable::Proven);
}
