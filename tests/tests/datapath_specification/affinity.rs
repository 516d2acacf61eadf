//! Clients of a service with affinity go back to the backend they had.
use std::{
    collections::BTreeSet,
    iter,
    net::{IpAddr, SocketAddr},
};

use lb_common::{AffinityKey, Algorithm, BackendState, DropReason, Ipv4Address, Port, V4, Verdict};
use lb_ebpf::{
    bytes::parse::Link,
    path::socket::{Call, Choice, SocketVerdict, request},
};
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{
        TCP, UDP, dissect,
        flag::{ACK, SYN},
    },
    packets::packet_builder::eth,
};

use crate::{
    fixture::{REQUEST, at},
    talk::{DNS, OTHER_WEB, WEB, client, frontend, other_frontend, pod, talk},
};

/// How long clients stay.
const STAY: u32 = 600;

/// Three pods behind `WEB` and `DNS`, chosen by chance, and clients that stay.
fn node() -> HostDatapath {
    let mut node = crate::talk::node();
    for service in [WEB, DNS] {
        node.choose_by(service, Algorithm::Random);
        node.stay(service, STAY);
    }
    node
}

/// A new connection of the client at 10.7.0.`host` from `port`.
fn open_from(node: &mut HostDatapath, protocol: u8, host: u8, port: u16) -> Option<SocketAddr> {
    let mut talk = talk(node, protocol, port);
    talk.client.set_ip(IpAddr::from([10, 7, 0, host]));
    talk.ask(SYN)
}

/// Backends of new connections from these ports.
fn met(
    node: &mut HostDatapath,
    protocol: u8,
    ports: impl Iterator<Item = u16>,
) -> BTreeSet<SocketAddr> {
    let met = ports.map(|port| open_from(node, protocol, 9, port).expect("a backend"));
    met.collect()
}

/// The number of a pod.
fn number(of: SocketAddr) -> u32 {
    (1..=3)
        .find(|number| pod(*number) == of)
        .expect("one of the pods")
}

/// A backend of WEB or DNS leaves in this state; the others stay.
fn leave(node: &mut HostDatapath, service: u32, leaver: u32, state: BackendState) {
    let id = service * 10 + leaver;
    node.backend(id, service, pod(leaver), state);
    let others: Vec<u32> = (1..=3).map(|pod| service * 10 + pod).collect();
    let others: Vec<u32> = others.into_iter().filter(|it| *it != id).collect();
    node.candidates(service, &others);
}

#[test]
fn without_affinity_connections_of_a_client_spread() {
    let mut node = node();
    for service in [WEB, DNS] {
        node.stay(service, 0);
    }
    for protocol in [TCP, UDP] {
        assert_eq!(met(&mut node, protocol, 1000..1050).len(), 3);
    }
    assert!(node.tables.v4.affinities.is_empty());
}

#[test]
fn connections_of_a_client_go_to_one_backend() {
    let mut node = node();
    for protocol in [TCP, UDP] {
        assert_eq!(met(&mut node, protocol, 1000..1050).len(), 1);
    }
    assert_eq!(node.tables.v4.affinities.len(), 2, "one for each service");
}

#[test]
fn each_client_has_a_backend_of_its_own() {
    let mut node = node();
    let mut first = Vec::new();
    for host in 1..=50 {
        first.push(open_from(&mut node, TCP, host, 1000).unwrap());
    }
    let distinct: BTreeSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), 3, "clients spread");
    for (host, first) in (1..=50).zip(first) {
        assert_eq!(open_from(&mut node, TCP, host, 1001), Some(first));
    }
}

#[test]
fn a_client_has_one_backend_at_all_frontends_of_a_service_port() {
    let mut node = node();
    let node_port = at("10.1.0.1:30080");
    node.frontend(WEB, TCP, node_port);
    node.choose_by(WEB, Algorithm::Random);
    let first = open_from(&mut node, TCP, 9, 1000);
    for port in 2000..2050 {
        let mut talk = talk(&mut node, TCP, port);
        talk.frontend = node_port;
        assert_eq!(talk.ask(SYN), first);
    }
}

#[test]
fn service_ports_do_not_know_each_others_clients() {
    let mut node = node();
    node.candidates(OTHER_WEB, &[31, 32, 33]);
    node.choose_by(OTHER_WEB, Algorithm::Random);
    node.stay(OTHER_WEB, STAY);
    let mut differ = 0;
    for host in 1..=50 {
        let first = open_from(&mut node, TCP, host, 1000);
        let mut talk = talk(&mut node, TCP, 2000);
        talk.client.set_ip(IpAddr::from([10, 7, 0, host]));
        talk.frontend = other_frontend();
        differ += u32::from(talk.ask(SYN) != first);
    }
    assert!((15..=50).contains(&differ), "{differ} of 50 differ");
}

#[test]
fn it_ends_when_no_connection_was_opened_for_the_timeout() {
    for (silence, stays) in [(STAY - 1, true), (STAY, false), (STAY + 1, false)] {
        let mut node = node();
        let mut spread = met(&mut node, TCP, iter::once(1000));
        for port in 1001..1030 {
            node.tables.clock.advance(silence);
            spread.extend(met(&mut node, TCP, iter::once(port)));
        }
        assert_eq!(spread.len() == 1, stays, "after {silence} s: {spread:?}");
    }
}

#[test]
fn connections_renew_it_and_packets_do_not() {
    let mut node = node();
    let first = open_from(&mut node, TCP, 9, 1000).unwrap();
    for port in 1001..1020 {
        node.tables.clock.advance(STAY - 1);
        assert_eq!(open_from(&mut node, TCP, 9, port), Some(first), "renewed");
    }
    let key = AffinityKey::<V4>::new(Ipv4Address::from([10, 7, 0, 9]), WEB);
    let noted = node.tables.v4.affinities[&key];
    node.tables.clock.advance(10);
    let mut talk = talk(&mut node, TCP, 1019);
    assert_eq!(talk.ask(ACK), Some(first), "a packet of a known flow");
    assert_eq!(node.tables.v4.affinities[&key], noted, "left alone by it");
    assert_eq!(open_from(&mut node, TCP, 9, 1020), Some(first));
    let renewed = node.tables.v4.affinities[&key];
    assert_eq!(renewed.backend_id, noted.backend_id);
    assert_ne!(renewed.last_opened, noted.last_opened);
}

#[test]
fn a_backend_that_has_left_is_not_gone_back_to() {
    for state in [
        BackendState::Draining,
        BackendState::Gone,
        BackendState::Free,
    ] {
        for (service, protocol) in [(WEB, TCP), (DNS, UDP)] {
            let mut node = node();
            let first = open_from(&mut node, protocol, 9, 1000).unwrap();
            leave(&mut node, service, number(first), state);
            let others = met(&mut node, protocol, 1001..1050);
            assert_eq!(others.len(), 1, "one other, and that one then: {state:?}");
            assert!(!others.contains(&first), "{state:?}");
            // It comes back: the client has another now.
            let id = service * 10 + number(first);
            node.backend(id, service, first, BackendState::Active);
            node.candidates(
                service,
                &[service * 10 + 1, service * 10 + 2, service * 10 + 3],
            );
            assert_eq!(met(&mut node, protocol, 1050..1100), others);
        }
    }
}

#[test]
fn whoever_gets_the_id_of_a_backend_does_not_get_its_clients() {
    let mut spread = BTreeSet::new();
    let mut node = node();
    for port in 1000..1050 {
        let met = open_from(&mut node, TCP, 9, port).unwrap();
        let backend = node.tables.v4.backends.get_mut(&(10 + number(met)));
        backend.expect("a backend").generation += 1;
        spread.insert(met);
    }
    assert_eq!(spread.len(), 3);
}

#[test]
fn a_backend_that_serves_another_service_now_is_not_gone_back_to() {
    let mut node = node();
    let first = open_from(&mut node, TCP, 9, 1000).unwrap();
    let id = 10 + number(first);
    node.candidates(WEB, &(11..=13).filter(|it| *it != id).collect::<Vec<_>>());
    node.backend(id, OTHER_WEB, first, BackendState::Active);
    assert!(!met(&mut node, TCP, 1001..1050).contains(&first));
}

#[test]
fn a_service_that_has_lost_all_its_backends_refuses_and_forgets_nobody() {
    let mut node = node();
    let first = open_from(&mut node, TCP, 9, 1000);
    node.candidates(WEB, &[]);
    let (verdict, _) = talk(&mut node, TCP, 1001).ask_with(SYN, 0);
    assert_eq!(verdict, Verdict::Drop(DropReason::NoBackend));
    node.candidates(WEB, &[11, 12, 13]);
    assert_eq!(open_from(&mut node, TCP, 9, 1002), first);
}

#[test]
fn a_flow_whose_replies_would_meet_anothers_goes_to_the_clients_backend_all_the_same() {
    let mut node = node();
    let kept = open_from(&mut node, TCP, 9, 999).unwrap();
    // The client has a connection to the same pod from the same port, by another service.
    node.candidates(OTHER_WEB, &[30 + number(kept)]);
    let mut other = talk(&mut node, TCP, 1000);
    other.frontend = other_frontend();
    assert_eq!(other.ask(SYN), Some(kept));
    for port in [1000, 1001] {
        assert_eq!(talk(&mut node, TCP, port).ask(SYN), Some(kept), "{port}");
    }
}

#[test]
fn ipv6_clients_stay_as_well() {
    let mut node = HostDatapath::default();
    let frontend = at("[fd00:96::1]:80");
    node.frontend(1, TCP, frontend);
    node.choose_by(1, Algorithm::Random);
    for id in 1..=3 {
        let pod = at(&format!("[fd00:244::{id}]:8080"));
        node.backend(id, 1, pod, BackendState::Active);
    }
    node.candidates(1, &[1, 2, 3]);
    let open = |node: &mut HostDatapath, client: String| {
        let packet = eth().between(TCP, at(&client), frontend).syn().build();
        let (verdict, bytes) = node.enter(&packet);
        assert_eq!(verdict, REQUEST);
        dissect(&bytes, Link::Ethernet).unwrap().destination
    };
    for (stay, backends) in [(0, 3), (STAY, 1)] {
        node.stay(1, stay);
        let ports = 1000..1050;
        let ports = ports.map(|port| open(&mut node, format!("[fd00:7::9]:{}", port + stay)));
        assert_eq!(ports.collect::<BTreeSet<_>>().len(), backends);
    }
    // The last bits of the address count as much as the first.
    let others = (1..=50).map(|host| open(&mut node, format!("[fd00:7::1:{host}]:1000")));
    assert_eq!(others.collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(node.tables.v6.affinities.len(), 51);
}

fn dial(node: &mut HostDatapath, cookie: u64, protocol: u8, choice: Choice) -> SocketAddr {
    let IpAddr::V4(address) = frontend().ip() else {
        unreachable!("an IPv4 frontend")
    };
    let call = Call::<V4> {
        cookie,
        protocol,
        address: Ipv4Address::from(address),
        port: Port::new(frontend().port()),
        bound_device: 0,
    };
    match request(&mut node.tables, &call, choice) {
        SocketVerdict::Translated(address, port) => SocketAddr::new(address.into(), port.number()),
        other @ (SocketVerdict::Pass | SocketVerdict::Failed(_)) => unreachable!("{other:?}"),
    }
}

#[test]
fn all_processes_of_the_node_are_one_client() {
    let kinds = [
        (TCP, WEB, Choice::Connection),
        (UDP, DNS, Choice::Connection),
        (UDP, DNS, Choice::Datagram),
    ];
    for (protocol, service, choice) in kinds {
        let mut node = node();
        let met = |node: &mut HostDatapath| -> BTreeSet<SocketAddr> {
            (0..50)
                .map(|cookie| dial(node, cookie, protocol, choice))
                .collect()
        };
        let first = met(&mut node);
        assert_eq!(first.len(), 1, "{choice:?}");
        let first = first.into_iter().next().unwrap();
        // Renewed, whoever of them dials.
        for cookie in 0..20 {
            node.tables.clock.advance(STAY - 1);
            assert_eq!(dial(&mut node, 100 + cookie, protocol, choice), first);
        }
        leave(&mut node, service, number(first), BackendState::Draining);
        let others = met(&mut node);
        assert_eq!(others.len(), 1, "{choice:?}");
        assert!(!others.contains(&first), "{choice:?}");
        node.stay(service, 0);
        assert_eq!(met(&mut node).len(), 2, "{choice:?}");
    }
}

#[test]
fn a_sockets_datagrams_are_noted_once_a_second() {
    let mut node = node();
    let key = AffinityKey::<V4>::new(Ipv4Address::from([0; 4]), DNS);
    let mut noted = BTreeSet::new();
    for _ in 0..10 {
        for _ in 0..10 {
            let _backend = dial(&mut node, 7, UDP, Choice::Datagram);
            noted.insert(node.tables.v4.affinities[&key].last_opened);
            // A tenth of a second.
            node.tables.clock.now = node.tables.clock.now.wrapping_add(25);
        }
    }
    assert_eq!(noted.len(), 10);
    // A connection is a new flow, and always is.
    let _backend = dial(&mut node, 7, UDP, Choice::Connection);
    let noted = node.tables.v4.affinities[&key].last_opened;
    node.tables.clock.now = node.tables.clock.now.wrapping_add(25);
    let _backend = dial(&mut node, 7, UDP, Choice::Connection);
    let renewed = node.tables.v4.affinities[&key].last_opened;
    assert_eq!(renewed, noted.wrapping_add(25));
}

#[test]
fn a_process_and_a_client_outside_are_two() {
    let mut node = node();
    let _process = dial(&mut node, 7, TCP, Choice::Connection);
    let _client = talk(&mut node, TCP, client(1000).port()).ask(SYN);
    assert_eq!(node.tables.v4.affinities.len(), 2);
    assert!(node.tables.v6.affinities.is_empty());
}

#[test]
fn a_service_without_affinity_notes_no_client_after_one_with_it() {
    let mut node = node();
    let _kept = open_from(&mut node, TCP, 9, 1000);
    let mut other = talk(&mut node, TCP, 1000);
    other.frontend = other_frontend();
    assert!(other.ask(SYN).is_some());
    assert_eq!(node.tables.v4.affinities.len(), 1);
    node.stay(DNS, 0);
    let _backend = dial(&mut node, 7, UDP, Choice::Datagram);
    assert_eq!(node.tables.v4.affinities.len(), 1, "a process's datagram");
}
