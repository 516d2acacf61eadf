//! Processes of the node: their sockets talk to backends, and they never see it.
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    BackendState, Counter, DropReason, FrontendEntry, FrontendFlags, FrontendKey, Ipv4Address,
    Port, V4,
};
use lb_ebpf::path::socket::{Call, Choice, SocketVerdict, reply, request};
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{TCP, UDP},
};

use crate::{
    fixture::at,
    talk::{DNS, OTHER_WEB, WEB, frontend, node, pod},
};

fn call(cookie: u64, protocol: u8, peer: SocketAddr) -> Call<V4> {
    let IpAddr::V4(address) = peer.ip() else {
        unreachable!("these cases are IPv4's")
    };
    Call {
        cookie,
        protocol,
        address: Ipv4Address::from(address),
        port: Port::new(peer.port()),
        bound_device: 0,
    }
}
/// Where a verdict sends a call; `None` if it passes or fails.
fn target(verdict: SocketVerdict<V4>) -> Option<SocketAddr> {
    match verdict {
        SocketVerdict::Translated(address, port) => {
            let address: IpAddr = address.into();
            Some(SocketAddr::new(address, port.number()))
        }
        SocketVerdict::Pass | SocketVerdict::Failed(_) => None,
    }
}
/// Where a socket that connects goes, if it is translated; otherwise it must pass.
pub(crate) fn dials(node: &mut HostDatapath, protocol: u8, peer: SocketAddr) -> Option<SocketAddr> {
    let verdict = ask(node, &call(7, protocol, peer), Choice::Connection);
    assert!(!matches!(verdict, SocketVerdict::Failed(_)), "{verdict:?}");
    target(verdict)
}
fn ask(node: &mut HostDatapath, call: &Call<V4>, choice: Choice) -> SocketVerdict<V4> {
    request(&mut node.tables, call, choice)
}
fn answer(node: &mut HostDatapath, call: &Call<V4>) -> SocketVerdict<V4> {
    reply(&mut node.tables, call)
}

#[test]
fn a_socket_that_dials_a_frontend_talks_to_a_backend_and_believes_in_the_frontend() {
    for (protocol, choice) in [
        (TCP, Choice::Connection),
        (UDP, Choice::Connection),
        (UDP, Choice::Datagram),
    ] {
        let mut node = node();
        let backend = target(ask(&mut node, &call(7, protocol, frontend()), choice)).unwrap();
        assert!((1..=3).any(|number| pod(number) == backend));
        assert_eq!(
            target(answer(&mut node, &call(7, protocol, backend))),
            Some(frontend())
        );
        assert_eq!(node.tables.counted(Counter::SocketRequests), 1);
        assert_eq!(node.tables.counted(Counter::SocketReplies), 1);
    }
}

#[test]
fn what_is_no_frontend_is_left_alone() {
    let mut node = node();
    for peer in [at("10.96.0.1:81"), at("10.96.0.2:80"), pod(1)] {
        let verdict = ask(&mut node, &call(7, TCP, peer), Choice::Connection);
        assert_eq!(verdict, SocketVerdict::Pass, "{peer}");
        assert_eq!(
            answer(&mut node, &call(7, TCP, peer)),
            SocketVerdict::Pass,
            "{peer}"
        );
    }
    assert!(node.tables.v4.socket_flows.is_empty());
}

#[test]
fn another_socket_that_talks_to_the_backend_itself_sees_the_backend() {
    let mut node = node();
    let backend = target(ask(&mut node, &call(7, UDP, frontend()), Choice::Datagram)).unwrap();
    assert_eq!(
        answer(&mut node, &call(8, UDP, backend)),
        SocketVerdict::Pass
    );
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    let mut node = node();
    node.candidates(WEB, &[]);
    let verdict = ask(&mut node, &call(7, TCP, frontend()), Choice::Connection);
    assert_eq!(verdict, SocketVerdict::Failed(DropReason::NoBackend));
    assert_eq!(node.tables.counted(Counter::SocketRefused), 1);
    assert!(node.tables.v4.socket_flows.is_empty());
}

#[test]
fn the_datagrams_of_a_socket_go_to_one_backend_until_it_leaves() {
    let mut node = node();
    let dial = |node: &mut HostDatapath, cookie| {
        target(ask(node, &call(cookie, UDP, frontend()), Choice::Datagram))
    };
    let first = dial(&mut node, 7).unwrap();
    assert!((0..50).all(|_| dial(&mut node, 7) == Some(first)));
    let others: BTreeSet<_> = (0..50).map(|cookie| dial(&mut node, cookie)).collect();
    assert_eq!(others.len(), 3, "sockets spread over all backends");
    let number = (1..=3).find(|number| pod(*number) == first).unwrap();
    node.backend(20 + number, DNS, first, BackendState::Draining);
    node.candidates(
        DNS,
        &(21..=23)
            .filter(|id| *id != 20 + number)
            .collect::<Vec<_>>(),
    );
    for cookie in 0..50 {
        assert_ne!(
            dial(&mut node, cookie),
            Some(first),
            "a datagram to a backend that has left"
        );
    }
}

#[test]
fn connections_of_a_process_spread() {
    let mut node = node();
    let dialled = (0..50).map(|_| {
        target(ask(
            &mut node,
            &call(7, TCP, frontend()),
            Choice::Connection,
        ))
    });
    assert_eq!(dialled.collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn a_process_is_a_client_inside() {
    let mut node = node();
    let IpAddr::V4(address) = frontend().ip() else {
        unreachable!("an IPv4 frontend")
    };
    let key = FrontendKey::<V4>::new(address.into(), Port::new(80), TCP);
    let everybody = node.tables.v4.frontends.get_mut(&key).unwrap();
    everybody.flags = FrontendFlags::INSIDE_ELSEWHERE;
    let inside = FrontendEntry {
        service_id: OTHER_WEB,
        flags: FrontendFlags::NONE,
    };
    node.tables.v4.frontends.insert(key.inside(), inside);
    node.candidates(WEB, &[11]);
    node.candidates(OTHER_WEB, &[32]);
    let verdict = ask(&mut node, &call(7, TCP, frontend()), Choice::Connection);
    assert_eq!(target(verdict), Some(pod(2)));
}

#[test]
fn what_cannot_be_remembered_fails_and_is_counted() {
    let mut node = node();
    node.tables.v4.instrument.takes_no_socket_flows = true;
    let verdict = ask(&mut node, &call(7, UDP, frontend()), Choice::Datagram);
    assert_eq!(verdict, SocketVerdict::Failed(DropReason::FlowNotStored));
    assert_eq!(node.tables.counted(Counter::DropFlowNotStored), 1);
    assert_eq!(node.tables.counted(Counter::SocketRequests), 0);
}

#[test]
fn a_call_that_a_rule_denies_is_counted_apart_from_one_that_nobody_answers() {
    for (flags, denied, refused) in [
        (FrontendFlags::NONE, 0, 1),
        (FrontendFlags::BACKENDS_ELSEWHERE, 1, 0),
        (FrontendFlags::NODE_EXCLUDED, 1, 0),
    ] {
        let mut node = node();
        node.candidates(WEB, &[]);
        for entry in node.tables.v4.frontends.values_mut() {
            entry.flags = flags;
        }
        let verdict = ask(&mut node, &call(7, TCP, frontend()), Choice::Connection);
        assert_eq!(target(verdict), None);
        let counted = [Counter::SocketDenied, Counter::SocketRefused]
            .map(|counter| node.tables.counted(counter));
        assert_eq!(counted, [denied, refused], "{flags:?}");
    }
}

#[test]
fn a_socket_that_asks_two_services_of_one_pod_knows_their_answers_apart() {
    let mut node = node();
    let (second, port) = (at("10.96.0.4:53"), at("10.244.0.1:5353"));
    node.frontend(OTHER_WEB, UDP, second);
    node.backend(31, OTHER_WEB, port, BackendState::Active);
    node.candidates(DNS, &[21]);
    for (frontend, backend) in [(frontend(), pod(1)), (second, port)] {
        let verdict = ask(&mut node, &call(7, UDP, frontend), Choice::Datagram);
        assert_eq!(target(verdict), Some(backend));
    }
    for (frontend, backend) in [(frontend(), pod(1)), (second, port)] {
        let verdict = answer(&mut node, &call(7, UDP, backend));
        assert_eq!(target(verdict), Some(frontend));
    }
}
