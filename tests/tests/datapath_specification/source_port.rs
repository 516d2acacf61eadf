//! One client port, one backend, two frontends: the flow that comes second gets another source port.
use std::net::SocketAddr;

use lb_common::{Counter, DropReason, FlowFlags, FrontendFlags, Port, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::{HostDatapath, tuple},
    packets::dissect::{
        TCP, UDP, assert_checksums, dissect,
        flag::{ACK, FIN, RST, SYN},
    },
    packets::packet_builder::eth,
};

use crate::{
    fixture::{REPLY, REQUEST},
    talk::{OTHER_WEB, Talk, WEB, client, frontend, node, other_frontend, pod, talk},
};

/// From and to whom a packet goes on.
type Ends = (SocketAddr, SocketAddr);

/// Both services have the same pod alone.
pub(crate) fn two_services_with_a_pod() -> HostDatapath {
    let mut node = node();
    node.candidates(WEB, &[11]);
    node.candidates(OTHER_WEB, &[31]);
    node
}

pub(crate) fn enter(
    node: &mut HostDatapath,
    protocol: u8,
    to: SocketAddr,
    flags: u8,
    ack: u32,
) -> Ends {
    let packet = eth().between(protocol, client(1000), to).flags(flags);
    let (verdict, bytes) = node.enter(&packet.acknowledge(ack).build());
    assert_eq!(verdict, REQUEST);
    ends(&bytes)
}
/// The pod answers, at the port it was asked from.
pub(crate) fn answer(node: &mut HostDatapath, protocol: u8, port: u16, flags: u8) -> Ends {
    let packet = eth().between(protocol, pod(1), client(port)).flags(flags);
    let (verdict, bytes) = node.leave(&packet.sequence(900).build());
    assert_eq!(verdict, REPLY);
    ends(&bytes)
}
pub(crate) fn ends(bytes: &[u8]) -> Ends {
    assert_checksums(bytes, lb_ebpf::bytes::parse::Link::Ethernet);
    let packet = dissect(bytes, lb_ebpf::bytes::parse::Link::Ethernet).expect("a packet");
    (packet.source, packet.destination)
}
pub(crate) fn other(node: &mut HostDatapath) -> Talk<'_> {
    Talk {
        node,
        protocol: TCP,
        client: client(1000),
        frontend: other_frontend(),
    }
}

#[test]
fn the_second_flow_gets_another_source_port_and_both_go_on() {
    for protocol in [TCP, UDP] {
        let mut node = two_services_with_a_pod();
        if protocol == UDP {
            for (service, at) in [(WEB, frontend()), (OTHER_WEB, other_frontend())] {
                node.frontend(service, UDP, at);
            }
        }
        let open = |node: &mut HostDatapath, at: SocketAddr| enter(node, protocol, at, SYN, 0);
        let first = open(&mut node, frontend());
        assert_eq!(first, (client(1000), pod(1)), "the first keeps its port");
        let (source, destination) = open(&mut node, other_frontend());
        assert_eq!((source.ip(), destination), (client(0).ip(), pod(1)));
        let port = source.port();
        assert_ne!(port, 1000);
        assert!(
            (1024..30_000).contains(&port) || port >= 61_000,
            "port {port} is a node port or the client's own kernel may choose it"
        );
        assert_eq!(open(&mut node, other_frontend()).0, source, "sent again");

        for (asked, at) in [(1000, frontend()), (port, other_frontend())] {
            let reply = answer(&mut node, protocol, asked, SYN | ACK);
            assert_eq!(reply, (at, client(1000)));
            let goes_on = enter(&mut node, protocol, at, ACK, 901);
            assert_eq!(goes_on, (client(asked), pod(1)));
        }
        assert!(node.tables.v4.opening.is_empty(), "both are proven");
        assert_eq!(node.tables.v4.proven.len(), 4);
        for (asked, at) in [(1000, frontend()), (port, other_frontend())] {
            assert_eq!(
                answer(&mut node, protocol, asked, ACK),
                (at, client(1000)),
                "proven"
            );
        }
    }
}

#[test]
fn the_reply_tuple_of_a_flow_that_is_over_or_forgotten_is_taken_whole() {
    type End = fn(&mut HostDatapath);
    let ends: [(&str, End, bool); 4] = [
        ("it is open", |_| {}, false),
        (
            "silent for 59 s, never proven",
            |node| node.tables.clock.advance(59),
            false,
        ),
        (
            "silent for a minute, never proven",
            |node| node.tables.clock.advance(60),
            true,
        ),
        (
            "reset",
            |node| {
                assert_eq!(talk(node, TCP, 1000).answer(pod(1), RST), REPLY);
            },
            true,
        ),
    ];
    for (what, end, is_free) in ends {
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
            let key = lb_common::FrontendKey::new(key.source, key.source_port, TCP);
            let entry = node.tables.v4.frontends.get_mut(&key).expect("a frontend");
            entry.flags = FrontendFlags::MASQUERADE;
        }
        assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
        end(&mut node);
        let source = enter(&mut node, TCP, other_frontend(), SYN, 0).0;
        assert_eq!(source == client(1000), is_free, "{what}");
        // Request, reply, and the masquerade that is wanted.
        let entries = if is_free { 3 } else { 6 };
        assert_eq!(node.tables.v4.opening.len(), entries, "{what}");
    }
}

#[test]
fn masqueraded_flows_of_one_client_port_have_a_port_each() {
    let mut node = two_services_with_a_pod();
    let device = lb_common::DeviceEntry {
        masquerade_v4: [192, 168, 0, 1].into(),
        ..Default::default()
    };
    node.tables.devices.insert(1, device);
    let mut sources = Vec::new();
    for at in [frontend(), other_frontend()] {
        let key = tuple(TCP, at, at).expect("IPv4");
        let key = lb_common::FrontendKey::new(key.source, key.source_port, TCP);
        let entry = node.tables.v4.frontends.get_mut(&key).expect("a frontend");
        entry.flags = FrontendFlags::MASQUERADE;
        let (source, pod) = enter(&mut node, TCP, at, SYN, 0);
        let (_, bytes) = node.leave(&eth().between(TCP, source, pod).flags(SYN).build());
        sources.push(ends(&bytes).0);
    }
    assert_ne!(sources[0], sources[1]);
    for (source, at) in sources.into_iter().zip([frontend(), other_frontend()]) {
        let reply = eth().between(TCP, pod(1), source).flags(SYN | ACK).build();
        let (_, back) = node.enter(&reply);
        let (_, out) = node.leave(&back);
        assert_eq!(ends(&out), (at, client(1000)));
    }
}

#[test]
fn a_syn_on_a_finished_flow_with_another_source_port_chooses_anew() {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    let old = enter(&mut node, TCP, other_frontend(), SYN, 0).0;
    answer(&mut node, TCP, old.port(), SYN | ACK);
    enter(&mut node, TCP, other_frontend(), ACK, 901);
    enter(&mut node, TCP, other_frontend(), FIN | ACK, 901);
    answer(&mut node, TCP, old.port(), FIN | ACK);
    node.candidates(OTHER_WEB, &[32]);
    assert_eq!(other(&mut node).ask(SYN), Some(pod(2)));
    let left = node.remembered(TCP, pod(1), old);
    assert!(left.is_none(), "the old reply tuple stays behind: {left:?}");
}

#[test]
fn the_evicted_halves_of_a_flow_with_another_source_port_come_back() {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    let source = enter(&mut node, TCP, other_frontend(), SYN, 0).0;
    let request = tuple(TCP, client(1000), other_frontend()).unwrap();
    let reply = tuple(TCP, pod(1), source).unwrap().leaving();

    node.tables.v4.opening.remove(&reply);
    assert_eq!(enter(&mut node, TCP, other_frontend(), SYN, 0).0, source);
    let back = answer(&mut node, TCP, source.port(), SYN | ACK);
    assert_eq!(back, (other_frontend(), client(1000)), "the reply half");

    let own = node.tables.v4.opening.remove(&request).unwrap();
    answer(&mut node, TCP, source.port(), ACK);
    let restored = node.tables.v4.opening.get(&request).unwrap();
    assert_eq!(restored.other_port, own.other_port, "the request half");

    // Opened again before an answer could restore it, the flow finds the port it had.
    node.tables.v4.opening.remove(&request);
    assert_eq!(enter(&mut node, TCP, other_frontend(), SYN, 0).0, source);
}

#[test]
fn where_no_port_is_free_the_flow_is_dropped_and_counted_as_a_conflict() {
    let mut node = two_services_with_a_pod();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    let request = tuple(TCP, client(1000), frontend()).unwrap();
    let (_, mine) = node.remembered(TCP, client(1000), frontend()).unwrap();
    let [_, theirs] = [request, mine.other_half(&request)].map(|key| {
        let entry = node.tables.v4.opening.get(&key);
        entry.expect("it was just opened")
    });
    for table in [FlowTable::Opening, FlowTable::Proven] {
        for port in 1..=u16::MAX {
            let key = lb_common::Tuple {
                destination_port: Port::new(port),
                ..mine.other_half(&request)
            };
            node.tables.v4.flows_mut(FlowTable::Opening).remove(&key);
            node.tables.v4.flows_mut(table).put(key, theirs);
        }
        let (verdict, _) = other(&mut node).ask_with(SYN, 0);
        assert_eq!(verdict, Verdict::Drop(DropReason::FlowConflict));
        assert_eq!(
            verdict.counter(),
            Some(Counter::DropFlowConflict),
            "{table:?}"
        );
        let half = node.remembered(TCP, client(1000), other_frontend());
        assert!(half.is_none(), "half a flow stays: {half:?}");
        let theirs = node.tables.v4.flows(table).len();
        let all = node.tables.v4.opening.len() + node.tables.v4.proven.len();
        // Beside those of the ports, there is the first flow's request, which is opening.
        let others = usize::from(table == FlowTable::Proven);
        assert_eq!(all - theirs, others, "a try stays behind: {table:?}");
    }
}

/// A client that binds the port by which it uses a Service, and dials the Service's backend itself from there, shares the
/// reply tuple with the Service: the two cannot be told apart. Its direct packets pass untouched; the answers to them come
/// from the frontend, which the client's kernel refuses.
#[test]
fn a_direct_connection_from_a_port_that_the_service_uses_is_taken_for_the_services() {
    let mut node = two_services_with_a_pod();
    let direct = eth().between(TCP, client(1000), pod(1)).flags(SYN).build();
    let reply = eth().between(TCP, pod(1), client(1000)).flags(SYN | ACK);
    let before = node.leave(&reply.build());
    assert_eq!(before.1, reply.build(), "alone it is not touched");
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod(1)));
    assert_eq!(node.enter(&direct).1, direct);
    assert_eq!(node.leave(&direct).1, direct);
    assert_eq!(ends(&node.leave(&reply.build()).1).0, frontend());
    // From a port of its own it is not touched.
    let direct = eth().between(TCP, client(1001), pod(1)).flags(SYN).build();
    let reply = eth().between(TCP, pod(1), client(1001)).flags(SYN | ACK);
    assert_eq!(node.enter(&direct).1, direct);
    assert_eq!(node.leave(&reply.build()).1, reply.build());
    let flags = node.remembered(TCP, client(1000), frontend()).unwrap().1;
    assert!(flags.flags.has(FlowFlags::REQUEST));
}
