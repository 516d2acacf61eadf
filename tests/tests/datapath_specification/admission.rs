//! Who may dial what, and what becomes of packets to addresses of Services that are for none of their ports.
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lb_common::{
    DropReason, FrontendEntry, FrontendFlags, FrontendKey, PassReason, Port, Prefix, V4, V6,
    Verdict,
};
use lb_ebpf::path::socket::{Call, Choice, SocketVerdict, received, request};
use tests::{
    oracle::host_datapath::HostDatapath,
    oracle::memory_tables::MemoryFamily,
    packets::dissect::{
        ICMP_V4, ICMP_V6, TCP, UDP,
        flag::{ACK, SYN},
    },
    packets::packet_builder::eth,
};

use crate::{
    fixture::{self, REQUEST, at},
    talk::established,
};

const GRE: u8 = 47;
const UDP_LITE: u8 = 136;
const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

/// What is said of an address beside its ports.
#[derive(Clone, Copy)]
pub(crate) enum Said {
    Nothing,
    Refuses,
    Left,
}

/// The service at 10.96.0.1 and `fd00:96::1`, whose neighbours are services' addresses too.
pub(crate) fn node(said: Said, has_prefixes: bool) -> HostDatapath {
    let mut node = fixture::node();
    let flags = match said {
        Said::Nothing => None,
        Said::Refuses => Some(FrontendFlags::REFUSES),
        Said::Left => Some(FrontendFlags::NONE),
    };
    let entry = flags.map(|flags| FrontendEntry {
        service_id: 0,
        flags,
    });
    let (SocketAddr::V4(v4), SocketAddr::V6(v6)) =
        (fixture::frontend(false), fixture::frontend(true))
    else {
        unreachable!("one of each family")
    };
    let (v4, v6) = ((*v4.ip()).into(), (*v6.ip()).into());
    let tables = &mut node.tables;
    let frontends = &mut tables.v4.frontends;
    frontends.extend(entry.map(|entry| (FrontendKey::any_port(v4), entry)));
    let frontends = &mut tables.v6.frontends;
    frontends.extend(entry.map(|entry| (FrontendKey::any_port(v6), entry)));
    let around_v4 = Prefix::<V4> {
        network: [10, 96, 0, 0].into(),
        mask: [255, 240, 0, 0].into(),
    };
    let v6 = |address: &str| address.parse::<Ipv6Addr>().expect("an address").into();
    let around_v6 = Prefix::<V6> {
        network: v6("fd00:96::"),
        mask: v6("ffff:ffff::"),
    };
    tables.networks.v4.around_services = around_v4;
    tables.networks.v6.around_services = around_v6;
    if has_prefixes {
        tables.networks.v4.service_prefixes[3] = around_v4;
        tables.networks.v6.service_prefixes[3] = around_v6;
    }
    node
}

/// A process of the node connects.
fn dial(node: &mut HostDatapath, to: SocketAddr) -> Option<DropReason> {
    match to.ip() {
        IpAddr::V4(address) => failure::<V4>(node, TCP, address.into(), to.port()),
        IpAddr::V6(address) => failure::<V6>(node, TCP, address.into(), to.port()),
    }
}

fn failure<F: MemoryFamily>(
    node: &mut HostDatapath,
    protocol: u8,
    address: F::Address,
    port: u16,
) -> Option<DropReason> {
    let call = Call::<F> {
        cookie: 7,
        protocol,
        address,
        port: Port::new(port),
        bound_device: 0,
    };
    let choice = Choice::Connection;
    match request(&mut node.tables, &call, choice) {
        SocketVerdict::Failed(reason) => Some(reason),
        SocketVerdict::Pass | SocketVerdict::Translated(..) => None,
    }
}

#[test]
fn an_unknown_port_of_a_service_is_refused_and_an_address_that_no_service_has_is_dropped() {
    use DropReason::{NoSuchPort, NoSuchService};
    let port = ["10.96.0.1:81", "[fd00:96::1]:81"];
    let address = ["10.96.0.2:80", "[fd00:96::2]:80"];
    let elsewhere = ["10.112.0.1:80", "[fd00:97::1]:80"];
    for (said, has_prefixes, ends, expected) in [
        (Said::Refuses, false, port, Some(NoSuchPort)),
        (Said::Refuses, true, port, Some(NoSuchPort)),
        (Said::Left, false, port, None),
        (Said::Left, true, port, None),
        (Said::Nothing, false, port, None),
        (Said::Nothing, true, port, Some(NoSuchService)),
        (Said::Refuses, false, address, None),
        (Said::Refuses, true, address, Some(NoSuchService)),
        (Said::Refuses, true, elsewhere, None),
    ] {
        for end in ends {
            let to = at(end);
            let client = fixture::client(to.is_ipv6());
            let mut node = node(said, has_prefixes);
            for (protocol, flags) in [(TCP, SYN), (TCP, ACK), (TCP, SYN | ACK), (UDP, 0)] {
                let packet = eth().between(protocol, client, to).flags(flags).build();
                let (verdict, bytes) = node.enter(&packet);
                let begins = protocol == UDP || flags == SYN;
                let expected = expected.filter(|it| begins || *it != NoSuchService);
                assert_eq!(verdict, expected.map_or(NOT_OURS, Verdict::Drop), "{to}");
                assert_eq!(bytes, packet, "{to}");
            }
            assert_eq!(dial(&mut node, to), expected, "{to}");
        }
    }
}

#[test]
fn what_has_no_ports_is_refused_at_a_service_and_dropped_at_an_address_that_no_service_has() {
    use DropReason::{NoSuchPort, NoSuchService};
    let service = ["10.96.0.1:0", "[fd00:96::1]:0"];
    let nobody = ["10.96.0.2:0", "[fd00:96::2]:0"];
    let elsewhere = ["10.112.0.1:0", "[fd00:97::1]:0"];
    for (said, has_prefixes, ends, expected) in [
        (Said::Refuses, false, service, Some(NoSuchPort)),
        (Said::Refuses, true, service, Some(NoSuchPort)),
        (Said::Left, true, service, None),
        (Said::Nothing, false, service, None),
        (Said::Nothing, true, service, Some(NoSuchService)),
        (Said::Refuses, false, nobody, None),
        (Said::Refuses, true, nobody, Some(NoSuchService)),
        (Said::Refuses, true, elsewhere, None),
    ] {
        for to in ends.map(at) {
            let (protocol, ping, answer) = if to.is_ipv6() {
                (ICMP_V6, 128, 129)
            } else {
                (ICMP_V4, 8, 0)
            };
            let message = |kind| {
                let packet = eth().between(protocol, fixture::client(to.is_ipv6()), to);
                packet.icmp(kind, 0, [0, 7, 0, 1]).payload(b"data").build()
            };
            let other = Verdict::Pass(PassReason::OtherProtocol);
            let pinged = expected.map_or(other, Verdict::Drop);
            // Whether they are answers is not known.
            let of_others = expected
                .filter(|it| *it != NoSuchService)
                .map_or(other, Verdict::Drop);
            let no_ports = |protocol| {
                let packet = eth().between(TCP, fixture::client(to.is_ipv6()), to);
                packet.other(protocol).payload(&[0; 24]).build()
            };
            for (bytes, expected) in [
                (message(ping), pinged),
                (message(answer), other),
                (no_ports(GRE), of_others),
                (no_ports(UDP_LITE), of_others),
            ] {
                let untouched = (expected, bytes.clone());
                // What a process of the node sends comes by on egress alone.
                assert_eq!(node(said, has_prefixes).enter(&bytes), untouched, "{to}");
                assert_eq!(node(said, has_prefixes).leave(&bytes), untouched, "{to}");
            }
        }
    }
}

#[test]
fn who_has_an_address_like_a_services_is_answered_and_not_dialled() {
    const DROPPED: Verdict = Verdict::Drop(DropReason::NoSuchService);
    let servers = ["10.7.0.9:53", "[fd00:7::9]:53"].map(at);
    let machines = ["10.96.0.2:4000", "[fd00:96::2]:4000"].map(at);
    for (server, machine) in servers.into_iter().zip(machines) {
        let mut node = node(Said::Refuses, true);
        let datagram = |from, to| eth().between(UDP, from, to).payload(b"data").build();
        let mut enter = |from, to| node.enter(&datagram(from, to)).0;
        assert_eq!(enter(server, machine), DROPPED, "no request was sent");
        for _ in 0..2 {
            assert_eq!(enter(machine, server), NOT_OURS);
            assert_eq!(enter(server, machine), NOT_OURS, "an answer");
        }
        let other_port = SocketAddr::new(server.ip(), 54);
        assert_eq!(enter(other_port, machine), DROPPED, "another question");
    }
}

#[test]
fn a_translated_flow_of_who_has_an_address_like_a_services_is_answered() {
    let mut node = node(Said::Refuses, true);
    let (machine, frontend) = (at("10.96.0.2:4000"), fixture::frontend(false));
    let question = eth().between(UDP, machine, frontend).payload(b"data");
    assert_eq!(node.enter(&question.build()).0, REQUEST);
    let answer = eth().between(UDP, fixture::backend(false), machine);
    assert_eq!(node.enter(&answer.payload(b"data").build()).0, NOT_OURS);
}

#[test]
fn a_socket_answers_who_has_asked_it_though_the_address_is_like_a_services() {
    let mut node = node(Said::Refuses, true);
    let call = |cookie| Call::<V4> {
        cookie,
        protocol: UDP,
        address: [10, 96, 0, 2].into(),
        port: Port::new(4000),
        bound_device: 0,
    };
    let send = |node: &mut HostDatapath, cookie| {
        request(&mut node.tables, &call(cookie), Choice::Datagram)
    };
    let refused = SocketVerdict::Failed(DropReason::NoSuchService);
    assert_eq!(send(&mut node, 7), refused);
    assert_eq!(received(&mut node.tables, &call(7)), SocketVerdict::Pass);
    assert_eq!(send(&mut node, 7), SocketVerdict::Pass);
    assert_eq!(received(&mut node.tables, &call(7)), SocketVerdict::Pass);
    assert_eq!(send(&mut node, 8), refused, "another socket");
}

#[test]
fn the_agent_asks_the_api_server_and_not_a_service_at_its_address() {
    // A node port, or a balancer's address, of which nothing is said beside it; and a ClusterIP.
    for (said, is_translated) in [(Said::Nothing, false), (Said::Refuses, true)] {
        let mut node = node(said, false);
        let to = fixture::frontend(false);
        let call = |protocol| Call::<V4> {
            cookie: 7,
            protocol,
            address: [10, 96, 0, 1].into(),
            port: Port::new(to.port()),
            bound_device: 0,
        };
        let mut is_passed = |protocol, is_api_thread| {
            node.tables.is_api_thread = is_api_thread;
            let choice = Choice::Connection;
            request(&mut node.tables, &call(protocol), choice) == SocketVerdict::Pass
        };
        assert!(!is_passed(TCP, false), "another program");
        assert_eq!(is_passed(TCP, true), !is_translated);
        assert!(!is_passed(UDP, true), "a question for a name");
    }
}

#[test]
fn what_is_around_services_costs_others_nothing() {
    let mut node = node(Said::Refuses, true);
    let packet = eth().between(TCP, fixture::client(false), at("192.0.2.1:80"));
    node.tables.instrument.lookups.set(0);
    assert_eq!(node.enter(&packet.syn().build()).0, NOT_OURS);
    assert_eq!(node.tables.instrument.lookups.get(), 2);
}

/// Lets only the clients within these ranges dial the service of TCP.
fn limit(node: &mut HostDatapath, ranges: &[&str], more: FrontendFlags) {
    let flags = FrontendFlags::SOURCE_RANGES.with(more);
    for entry in node.tables.v4.frontends.values_mut() {
        entry.flags = flags;
    }
    for entry in node.tables.v6.frontends.values_mut() {
        entry.flags = flags;
    }
    let ranges = ranges.iter().map(|it| it.parse().expect("a prefix"));
    let ids = 1..=4;
    node.tables.source_ranges = ranges
        .flat_map(|it| ids.clone().map(move |id| (id, it)))
        .collect();
}

#[test]
fn only_clients_within_its_source_ranges_dial_a_service() {
    const OUT: Verdict = Verdict::Drop(DropReason::SourceNotAllowed);
    for (ranges, is_v6, expected) in [
        (&["10.7.0.0/24"][..], false, REQUEST),
        (&["10.7.1.0/24"], false, OUT),
        (&["10.7.1.0/24", "10.7.0.9/32"], false, REQUEST),
        (&["0.0.0.0/0"], false, REQUEST),
        (&[], false, OUT),
        (&["fd00:7::/64"], true, REQUEST),
        (&["fd00:8::/64"], true, OUT),
    ] {
        for protocol in [TCP, UDP] {
            let mut node = fixture::node();
            limit(&mut node, ranges, FrontendFlags::NONE);
            let packet = fixture::request(eth(), is_v6, protocol).build();
            assert_eq!(node.enter(&packet).0, expected, "{ranges:?}");
        }
    }
}

#[test]
fn a_flow_outlives_the_ranges_it_was_opened_under() {
    let mut node = crate::talk::node();
    let pod = established(&mut node, 2000);
    limit(&mut node, &["192.0.2.0/24"], FrontendFlags::NONE);
    let mut talk = crate::talk::talk(&mut node, TCP, 2000);
    assert_eq!(talk.ask(ACK), Some(pod));
    let mut talk = crate::talk::talk(&mut node, TCP, 2001);
    assert_eq!(talk.ask(SYN), None);
}

#[test]
fn a_node_outside_the_ranges_has_its_processes_calls_denied() {
    for (more, expected) in [
        (FrontendFlags::NONE, None),
        (
            FrontendFlags::NODE_EXCLUDED,
            Some(DropReason::SourceNotAllowed),
        ),
    ] {
        for is_v6 in [false, true] {
            let mut node = fixture::node();
            limit(&mut node, &[], more);
            assert_eq!(dial(&mut node, fixture::frontend(is_v6)), expected);
        }
    }
}

#[test]
fn a_process_hears_that_its_node_has_no_endpoint_where_others_have_some() {
    for (flags, expected) in [
        (FrontendFlags::NONE, DropReason::NoBackend),
        (
            FrontendFlags::BACKENDS_ELSEWHERE,
            DropReason::NoLocalBackend,
        ),
    ] {
        let mut node = fixture::node();
        node.candidates(1, &[]);
        for entry in node.tables.v4.frontends.values_mut() {
            entry.flags = flags;
        }
        assert_eq!(dial(&mut node, fixture::frontend(false)), Some(expected));
    }
}

#[test]
fn a_packet_is_dropped_rather_than_refused_where_others_have_an_endpoint() {
    for (flags, expected) in [
        (FrontendFlags::NONE, DropReason::NoBackend),
        (
            FrontendFlags::BACKENDS_ELSEWHERE,
            DropReason::NoLocalBackend,
        ),
    ] {
        let mut node = fixture::node();
        node.candidates(1, &[]);
        for entry in node.tables.v4.frontends.values_mut() {
            entry.flags = flags;
        }
        let packet = fixture::request(eth(), false, TCP).build();
        assert_eq!(node.enter(&packet), (Verdict::Drop(expected), packet));
    }
}

/// `connect` of a ping socket, which has neither a protocol that Services know nor a port.
#[test]
fn a_ping_of_another_proxys_address_passes_and_of_ours_is_refused() {
    let v4 = |said| failure::<V4>(&mut node(said, true), 0, [10, 96, 0, 1].into(), 0);
    assert_eq!(v4(Said::Left), None);
    assert_eq!(v4(Said::Refuses), Some(DropReason::NoSuchPort));
    let address = || "fd00:96::1".parse::<Ipv6Addr>().expect("an address");
    let v6 = |said| failure::<V6>(&mut node(said, true), 0, address().into(), 0);
    assert_eq!(v6(Said::Left), None);
    assert_eq!(v6(Said::Refuses), Some(DropReason::NoSuchPort));
}
