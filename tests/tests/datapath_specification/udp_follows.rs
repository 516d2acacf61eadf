//! A UDP flow belongs to the service port that its frontend belongs to now.
use lb_common::{BackendState, Counter, FrontendKey, PassReason, Port, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{oracle::host_datapath::HostDatapath, packets::dissect::UDP};

use crate::{
    fixture::{REPLY, REQUEST},
    talk::{DNS, client, frontend, node, pod, talk},
};

/// The service that the frontend is given to; its only backend is the pod 9.
const OTHER: u32 = 77;

fn with_another_service() -> HostDatapath {
    let mut node = node();
    node.backend(99, OTHER, pod(9), BackendState::Active);
    node.candidates(OTHER, &[99]);
    node
}

/// A flow in this table, with its backend.
fn flow(node: &mut HostDatapath, table: FlowTable) -> std::net::SocketAddr {
    let mut talk = talk(node, UDP, 1000);
    let pod = talk.ask(0).expect("a backend");
    if table == FlowTable::Proven {
        assert_eq!(talk.answer(pod, 0), REPLY);
        assert_eq!(talk.ask(0), Some(pod));
    }
    assert_eq!(talk.table(), Some(table));
    pod
}

fn raise_epoch(node: &mut HostDatapath) {
    node.tables.frontend_epoch += 1;
}

fn remove_frontend(node: &mut HostDatapath) {
    let std::net::IpAddr::V4(address) = frontend().ip() else {
        unreachable!("an IPv4 frontend")
    };
    let key = FrontendKey::new(address.into(), Port::new(frontend().port()), UDP);
    assert!(node.tables.v4.frontends.remove(&key).is_some());
}

#[test]
fn it_moves_at_once_when_another_service_has_the_frontend() {
    for table in [FlowTable::Opening, FlowTable::Proven] {
        let mut node = with_another_service();
        let before = flow(&mut node, table);
        assert_eq!(talk(&mut node, UDP, 1000).ask(0), Some(before));
        node.frontend(OTHER, UDP, frontend());
        raise_epoch(&mut node);
        assert_eq!(talk(&mut node, UDP, 1000).ask(0), Some(pod(9)), "{table:?}");
        assert_eq!(node.tables.counted(Counter::FlowsRebalanced), 1);
        assert_eq!(talk(&mut node, UDP, 1000).answer(pod(9), 0), REPLY);
    }
}

#[test]
fn it_ends_with_its_frontend_and_the_packet_passes_as_a_first_one_would() {
    for table in [FlowTable::Opening, FlowTable::Proven] {
        let mut node = with_another_service();
        flow(&mut node, table);
        remove_frontend(&mut node);
        raise_epoch(&mut node);
        let (verdict, _) = talk(&mut node, UDP, 1000).ask_with(0, 0);
        assert_eq!(verdict, Verdict::Pass(PassReason::NotOurs), "{table:?}");
        if table == FlowTable::Proven {
            assert_eq!(node.remembered(UDP, client(1000), frontend()), None);
        }
    }
}

#[test]
fn a_frontend_that_changed_hands_while_the_flow_was_opened_is_noticed() {
    let mut node = with_another_service();
    flow(&mut node, FlowTable::Opening);
    // The first packet had read the frontend before it was given away, and the epoch is that of afterwards.
    node.frontend(OTHER, UDP, frontend());
    assert_eq!(talk(&mut node, UDP, 1000).ask(0), Some(pod(9)));
}

#[test]
fn it_stays_when_the_epoch_is_raised_for_others_and_when_the_policy_changes() {
    for table in [FlowTable::Opening, FlowTable::Proven] {
        let mut node = with_another_service();
        let before = flow(&mut node, table);
        raise_epoch(&mut node);
        assert_eq!(talk(&mut node, UDP, 1000).ask(0), Some(before));
        let (_, entry) = node.remembered(UDP, client(1000), frontend()).unwrap();
        assert_eq!(u32::from(entry.epoch), node.tables.frontend_epoch, "noted");
        node.frontend(OTHER, UDP, frontend());
        let service = node.tables.services.get_mut(&OTHER).expect("a service");
        service.sibling = DNS;
        raise_epoch(&mut node);
        assert_eq!(talk(&mut node, UDP, 1000).ask(0), Some(before), "{table:?}");
        assert_eq!(node.tables.counted(Counter::FlowsRebalanced), 0);
    }
}

#[test]
fn it_stays_with_a_backend_that_takes_no_new_flows_and_still_serves() {
    for table in [FlowTable::Opening, FlowTable::Proven] {
        let mut node = node();
        let before = flow(&mut node, table);
        for id in 21..=23 {
            node.backend(id, DNS, pod(id - 20), BackendState::Draining);
        }
        node.candidates(DNS, &[]);
        let (verdict, backend) = talk(&mut node, UDP, 1000).ask_with(0, 0);
        assert_eq!((verdict, backend), (REQUEST, Some(before)), "{table:?}");
    }
}
