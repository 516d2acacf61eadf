//! What a masquerade needs to be made, how long it stays, and that it is not chosen anew with its flow.
use std::net::SocketAddr;

use lb_common::{BackendState, DeviceEntry, DropReason, FlowFlags, FrontendFlags, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::{HostDatapath, tuple},
    packets::dissect::{
        TCP, UDP,
        flag::{ACK, SYN},
    },
    packets::packet_builder::eth,
};

use crate::{
    fixture::{self, REPLY, REQUEST, at},
    masquerade::{BACK, OUT, ends, lonely, packet},
    talk::{DNS, WEB, frontend, pod},
};

fn own_port() -> SocketAddr {
    SocketAddr::new(pod(1).ip(), 2000)
}

/// Pod 1 has dialled itself; how the packet looks before it leaves for it, and as whom the pod sees itself.
fn dialled(protocol: u8) -> (HostDatapath, Vec<u8>, SocketAddr) {
    let mut node = lonely();
    let (verdict, routed) = node.enter(&packet(protocol, own_port(), frontend(), SYN));
    assert_eq!(verdict, REQUEST);
    let (verdict, delivered) = node.leave(&routed);
    assert_eq!(verdict, OUT);
    let shown = ends(&delivered).0;
    (node, routed, shown)
}

#[test]
fn an_address_of_the_other_family_is_none() {
    for is_v6 in [false, true] {
        let mut node = fixture::node();
        let mut device = DeviceEntry {
            masquerade_v4: [10, 1, 0, 1].into(),
            masquerade_v6: [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into(),
            ..DeviceEntry::default()
        };
        if is_v6 {
            device.masquerade_v6 = [0; 16].into();
        } else {
            device.masquerade_v4 = [0; 4].into();
        }
        node.tables.devices.insert(1, device);
        let flags = FrontendFlags::MASQUERADE;
        for entry in node.tables.v4.frontends.values_mut() {
            entry.flags = flags;
        }
        for entry in node.tables.v6.frontends.values_mut() {
            entry.flags = flags;
        }
        let (_, routed) = node.enter(&fixture::request(eth(), is_v6, TCP).build());
        let dropped = Verdict::Drop(DropReason::NoMasqueradeAddress);
        assert_eq!(node.leave(&routed), (dropped, routed));
    }
}

#[test]
fn replies_of_a_backend_that_has_left_or_is_gone_still_find_their_client() {
    for (protocol, service, state) in [
        (UDP, DNS, BackendState::Left),
        (UDP, DNS, BackendState::Gone),
        (TCP, WEB, BackendState::Draining),
        (TCP, WEB, BackendState::Gone),
    ] {
        let (mut node, _, shown) = dialled(protocol);
        node.backend(service * 10 + 1, service, pod(1), state);
        node.tables.clock.advance(1);
        let reply = packet(protocol, pod(1), shown, SYN | ACK);
        let (verdict, back) = node.enter(&reply);
        let expected = (BACK, (pod(1), own_port()));
        assert_eq!((verdict, ends(&back)), expected, "{protocol} {state:?}");
        assert_eq!(node.leave(&back).0, REPLY);
    }
}

#[test]
fn a_wish_that_was_evicted_is_made_again_and_says_nothing_of_the_flow() {
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
    let answer = eth().between(TCP, pod(1), own_port()).syn_ack();
    assert_eq!(node.leave(&answer.sequence(900).build()).0, REPLY);
    let key = tuple(TCP, own_port(), pod(1)).unwrap().leaving();
    let wish = node.tables.v4.opening.remove(&key).expect("a wish");
    assert_eq!(
        node.enter(&packet(TCP, own_port(), frontend(), SYN)).0,
        REQUEST
    );
    let again = node.tables.v4.opening.get(&key).expect("another wish");
    assert_eq!(again.flags, wish.flags);
    let expected = FlowFlags::REQUEST.with(FlowFlags::MASQUERADE);
    assert_eq!(again.flags, expected);
    assert_eq!(node.leave(&routed).0, OUT);
}

#[test]
fn a_masquerade_is_not_proven_before_its_flow() {
    let (mut node, routed, shown) = dialled(TCP);
    for _ in 0..3 {
        assert_eq!(
            node.enter(&packet(TCP, own_port(), frontend(), SYN)).0,
            REQUEST
        );
        assert_eq!(node.leave(&routed).0, OUT);
    }
    assert!(node.tables.v4.proven.is_empty());
    let (table, _) = node.remembered(TCP, pod(1), shown).unwrap();
    assert_eq!(table, FlowTable::Opening);
}

#[test]
fn ports_are_tried_until_one_is_free_in_both_tables() {
    for table in [FlowTable::Opening, FlowTable::Proven] {
        let mut taken = vec![2000];
        for attempt in 0..3 {
            let mut node = lonely();
            let (_, routed) = node.enter(&packet(TCP, own_port(), frontend(), SYN));
            let (_, theirs) = node.remembered(TCP, own_port(), frontend()).unwrap();
            for port in &taken {
                let address = SocketAddr::new(at("10.1.0.1:0").ip(), *port);
                let key = tuple(TCP, pod(1), address).unwrap();
                node.tables.v4.flows_mut(table).put(key, theirs);
            }
            let (verdict, delivered) = node.leave(&routed);
            assert_eq!(verdict, OUT);
            let port = ends(&delivered).0.port();
            assert!(!taken.contains(&port), "attempt {attempt}: {port} again");
            taken.push(port);
        }
    }
}

#[test]
fn an_answered_flow_is_masqueraded_as_before() {
    let (mut node, routed, shown) = dialled(UDP);
    let (verdict, back) = node.enter(&packet(UDP, pod(1), shown, 0));
    assert_eq!((verdict, node.leave(&back).0), (BACK, REPLY));
    let (_, request) = node.remembered(UDP, own_port(), frontend()).unwrap();
    let expected = FlowFlags::MASQUERADE.with(FlowFlags::REPLIED);
    assert!(request.flags.has(expected), "{:?}", request.flags);
    // Its masquerade ends with it.
    node.backend(DNS * 10 + 1, DNS, pod(1), BackendState::Left);
    node.candidates(DNS, &[DNS * 10 + 2]);
    let (verdict, elsewhere) = node.enter(&packet(UDP, own_port(), frontend(), 0));
    assert_eq!((verdict, ends(&elsewhere).1), (REQUEST, pod(2)));
    assert_ne!(node.leave(&routed).0, OUT);
}
