//! Several CPUs with packets of one flow at the same time.
use lb_common::{Counter, DropReason, FlowEntry, FlowFlags, FlowSide, Port, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::tuple,
    packets::dissect::{
        TCP,
        flag::{ACK, SYN},
    },
};

use crate::{
    fixture::{REPLY, REQUEST, at},
    masquerade::{OUT, ends, lonely, packet},
    talk::{WEB, client, established, frontend, node, pod, talk},
};

#[test]
fn a_flow_that_is_moved_between_two_looks_is_found() {
    // The look at FLOWS comes too early, the one at OPENING_FLOWS too late.
    let moving = || [true].into();
    let mut node = node();
    let kept = established(&mut node, 1000);
    node.tables.instrument.missed.replace(moving());
    assert_eq!(talk(&mut node, TCP, 1000).ask(ACK), Some(kept));
    node.tables.instrument.missed.replace(moving());
    assert_eq!(talk(&mut node, TCP, 1000).answer(kept, ACK), REPLY);
    assert!(node.tables.instrument.missed.borrow().is_empty());
}

#[test]
fn each_move_to_flows_leaves_a_mark() {
    let mut node = node();
    let mut marks = vec![node.tables.marks.last_move];
    for port in 1000..1003 {
        established(&mut node, port);
        marks.push(node.tables.marks.last_move);
    }
    assert!(marks.is_sorted_by(|one, next| one < next), "{marks:?}");
}

#[test]
fn the_loser_of_a_race_who_chose_the_same_backend_leaves_the_reply_tuple_alone() {
    let mut winner = node();
    winner.candidates(WEB, &[11]);
    assert_eq!(talk(&mut winner, TCP, 1000).ask(SYN), Some(pod(1)));
    let (_, request) = winner.remembered(TCP, client(1000), frontend()).unwrap();

    let mut loser = node();
    loser.candidates(WEB, &[11]);
    let key = tuple(TCP, client(1000), frontend()).unwrap();
    loser
        .tables
        .v4
        .instrument
        .raced
        .extend([None, Some((FlowTable::Opening, key, request))]);
    assert_eq!(talk(&mut loser, TCP, 1000).ask(SYN), Some(pod(1)));
    assert_eq!(talk(&mut loser, TCP, 1000).answer(pod(1), SYN | ACK), REPLY);
    assert_eq!(loser.tables.counted(Counter::FlowsRepaired), 0);
}

#[test]
fn a_reply_tuple_that_another_flow_takes_at_the_last_moment_is_not_shared() {
    let mut node = node();
    node.candidates(WEB, &[11]);
    let reply = tuple(TCP, pod(1), client(1000)).unwrap().leaving();
    let theirs = FlowEntry {
        address: [10, 96, 0, 77].into(),
        port: Port::new(80),
        side: FlowSide::Source.byte(),
        ..bytemuck::Zeroable::zeroed()
    };
    node.tables
        .v4
        .instrument
        .raced
        .push_back(Some((FlowTable::Opening, reply, theirs)));
    let asked = packet(TCP, client(1000), frontend(), SYN);
    let (verdict, routed) = node.enter(&asked);
    let (source, destination) = ends(&routed);
    assert_eq!((verdict, destination), (REQUEST, pod(1)));
    assert_ne!(source, client(1000), "the tuple is the other flow's");
    assert_eq!(node.tables.v4.opening.get(&reply), Some(theirs));
    let (verdict, back) = node.leave(&packet(TCP, pod(1), source, SYN | ACK));
    assert_eq!((verdict, ends(&back)), (REPLY, (frontend(), client(1000))));
}

#[test]
fn a_masquerade_that_another_cpu_asks_for_at_the_last_moment_will_do() {
    let own_port = at("10.244.0.1:2000");
    let mut winner = lonely();
    let asked = packet(TCP, own_port, frontend(), SYN);
    let (_, routed) = winner.enter(&asked);
    let (_, wish) = winner.remembered(TCP, own_port, pod(1)).unwrap();

    let mut loser = lonely();
    let key = tuple(TCP, own_port, pod(1)).unwrap().leaving();
    loser
        .tables
        .v4
        .instrument
        .raced
        .extend([None, None, Some((FlowTable::Opening, key, wish))]);
    assert_eq!(loser.enter(&asked), (REQUEST, routed.clone()));
    assert_eq!(loser.leave(&routed).0, OUT);
}

#[test]
fn a_masqueraded_request_whose_entry_is_moved_meanwhile_goes_on_if_it_has_its_port() {
    let own_port = at("10.244.0.1:2000");
    // Egress looks at FLOWS, at OPENING_FLOWS, and there once more.
    let moved = || [false, false, true].into();
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port, frontend(), SYN));
    node.tables.instrument.missed.replace(moved());
    let (verdict, _) = node.leave(&routed);
    assert_eq!(verdict, Verdict::Drop(DropReason::FlowNotStored));
    let (verdict, first) = node.leave(&routed);
    assert_eq!(verdict, OUT);
    node.tables.instrument.missed.replace(moved());
    assert_eq!(node.leave(&routed), (OUT, first));
    let (table, entry) = node.remembered(TCP, own_port, pod(1)).unwrap();
    assert_eq!(table, FlowTable::Opening);
    assert!(entry.flags.has(FlowFlags::MASQUERADE));
}

#[test]
fn a_masquerade_port_whose_flow_is_moved_at_the_last_moment_is_not_shared() {
    let own_port = at("10.244.0.1:2000");
    let mut node = lonely();
    let (_, routed) = node.enter(&packet(TCP, own_port, frontend(), SYN));
    // Another flow has the port, and moves to FLOWS between our look there and our insert.
    let reply = tuple(TCP, pod(1), at("10.1.0.1:2000")).unwrap();
    let (_, theirs) = node.remembered(TCP, own_port, frontend()).unwrap();
    let moved = (FlowTable::Proven, reply, theirs);
    node.tables.v4.instrument.raced.push_back(Some(moved));
    let (verdict, delivered) = node.leave(&routed);
    assert_eq!(verdict, OUT);
    assert_ne!(
        ends(&delivered).0.port(),
        2000,
        "the port is the other flow's"
    );
    assert_eq!(node.tables.v4.proven.get(&reply), Some(theirs));
    assert_eq!(
        node.tables.v4.opening.get(&reply),
        None,
        "a try stays behind"
    );
}
