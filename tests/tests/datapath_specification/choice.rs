//! Which backend a new flow gets, and what keeps it from getting one.
use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{Algorithm, BackendState, DropReason, ServiceEntry, SlotRegion, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::{HostDatapath, tuple},
    packets::dissect::{TCP, flag::SYN},
};

use crate::{
    fixture::REQUEST,
    talk::{OTHER_WEB, WEB, client, frontend, node, pod, talk},
};

#[test]
fn a_service_without_backends_drops() {
    let mut node = node();
    node.candidates(WEB, &[]);
    let (verdict, _) = talk(&mut node, TCP, 1000).ask_with(SYN, 0);
    assert_eq!(verdict, Verdict::Drop(DropReason::NoBackend));
    assert!(node.tables.v4.opening.is_empty());
}

#[test]
fn chance_reaches_every_candidate_and_nobody_else() {
    let mut node = node();
    node.choose_by(WEB, Algorithm::Random);
    node.candidates(WEB, &[11, 13]);
    let mut hits = BTreeMap::<SocketAddr, u32>::new();
    for port in 1000..3000 {
        let to = talk(&mut node, TCP, port).ask(SYN).unwrap();
        *hits.entry(to).or_default() += 1;
    }
    assert_eq!(hits.keys().copied().collect::<Vec<_>>(), [pod(1), pod(3)]);
    assert!(
        hits.values().all(|hits| (900..1100).contains(hits)),
        "{hits:?}"
    );
}

#[test]
fn the_hash_gives_a_tuple_the_same_backend_each_time() {
    let to = |port| talk(&mut node(), TCP, port).ask(SYN);
    assert!((1000..1050).all(|port| to(port) == to(port)));
    assert!(
        (1000..1050).any(|port| to(port) != to(1000)),
        "all tuples go to one backend"
    );
}

#[test]
fn a_slot_of_a_foreign_service_is_not_believed() {
    let foreign = |readings: usize| {
        let mut node = node();
        let start = node.tables.services[&OTHER_WEB].slots.start();
        let stale = ServiceEntry {
            slots: SlotRegion::new(start, 1),
            ..node.tables.services[&WEB]
        };
        // The first reading asks for affinity only.
        let readings = std::iter::repeat_n(stale, 1 + readings).collect();
        node.tables.instrument.service_readings.replace(readings);
        talk(&mut node, TCP, 1000).ask_with(SYN, 0)
    };
    for readings in 0..4 {
        let (verdict, to) = foreign(readings);
        assert_eq!(verdict, REQUEST, "right at reading {}", readings + 1);
        assert!((1..=3).any(|number| Some(pod(number)) == to));
    }
    assert_eq!(foreign(4).0, Verdict::Drop(DropReason::ServiceInMotion));
}

#[test]
fn the_loser_of_a_race_takes_the_winners_backend() {
    let mut winner = node();
    winner.choose_by(WEB, Algorithm::Random);
    winner.candidates(WEB, &[12]);
    assert_eq!(talk(&mut winner, TCP, 1000).ask(SYN), Some(pod(2)));
    let (_, entry) = winner.remembered(TCP, client(1000), frontend()).unwrap();

    let mut loser = node();
    loser.candidates(WEB, &[11]);
    let key = tuple(TCP, client(1000), frontend()).unwrap();
    // The winner's entry appears just before the loser's own request entry is stored.
    loser
        .tables
        .v4
        .instrument
        .raced
        .push_back(Some((FlowTable::Opening, key, entry)));
    assert_eq!(talk(&mut loser, TCP, 1000).ask(SYN), Some(pod(2)));
    let own_reply = loser.remembered(TCP, pod(1), client(1000));
    assert!(
        own_reply.is_none(),
        "the loser's reply entry stays behind: {own_reply:?}"
    );
}

#[test]
fn a_flow_that_cannot_be_remembered_is_dropped() {
    let mut node = node();
    node.tables.v4.opening.evicts = false;
    for (capacity, what) in [(0, "no entry"), (1, "only one entry")] {
        node.tables.v4.opening.capacity = capacity;
        let (verdict, _) = talk(&mut node, TCP, 1000).ask_with(SYN, 0);
        assert_eq!(verdict, Verdict::Drop(DropReason::FlowNotStored), "{what}");
        assert!(
            node.tables.v4.opening.is_empty(),
            "{what}: half a flow stays"
        );
    }
}

#[test]
fn a_slot_is_believed_only_if_it_and_its_backend_are_the_services_own_and_active() {
    type Change = fn(&mut HostDatapath, u32);
    let changes: [(&str, Change); 6] = [
        ("the slot names another service", |node, slot| {
            node.tables.slots.get_mut(&slot).expect("a slot").service_id = OTHER_WEB;
        }),
        ("the slot is empty", |node, slot| {
            node.tables.slots.remove(&slot);
        }),
        ("the backend serves another service", |node, _| {
            node.backend(11, OTHER_WEB, pod(1), BackendState::Active);
        }),
        ("the backend drains", |node, _| {
            node.backend(11, WEB, pod(1), BackendState::Draining);
        }),
        ("the backend is gone", |node, _| {
            node.backend(11, WEB, pod(1), BackendState::Gone);
        }),
        ("nobody has the backend's id", |node, _| {
            node.tables.v4.backends.remove(&11);
        }),
    ];
    for (what, change) in changes {
        let mut node = node();
        node.candidates(WEB, &[11]);
        let slot = node.tables.services[&WEB].slots.start();
        change(&mut node, slot);
        let (verdict, _) = talk(&mut node, TCP, 1000).ask_with(SYN, 0);
        assert_eq!(
            verdict,
            Verdict::Drop(DropReason::ServiceInMotion),
            "{what}"
        );
        assert!(node.tables.v4.opening.is_empty(), "{what}");
    }
}

#[test]
fn chance_does_not_ask_whose_packet_it_is_and_the_hash_asks_nothing_else() {
    for (algorithm, backends) in [(Algorithm::Random, 3), (Algorithm::Hash, 1)] {
        let met = (0..50).map(|seed| {
            let mut node = node();
            node.tables.clock = tests::memory_clock::MemoryClock::new(seed);
            node.choose_by(WEB, algorithm);
            talk(&mut node, TCP, 1000).ask(SYN).expect("a backend")
        });
        let met: std::collections::BTreeSet<SocketAddr> = met.collect();
        assert_eq!(met.len(), backends, "{algorithm:?}");
    }
}
