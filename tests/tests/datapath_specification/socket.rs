//! Processes of the node: their sockets talk to backends, and they never see it.
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use lb_common::{BackendState, Counter, DropReason, Ipv4Address, Port, V4};
use lb_ebpf::socket_path::{Call, Choice, SocketVerdict, reply, request};
use tests::{
    dissect::{TCP, UDP},
    host_datapath::HostDatapath,
};

use crate::{
    fixture::at,
    talk::{DNS, WEB, frontend, node, pod},
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
fn ask(node: &mut HostDatapath, call: &Call<V4>, choice: Choice) -> SocketVerdict<V4> {
    request(&mut node.tables, &mut node.clock, call, choice)
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
