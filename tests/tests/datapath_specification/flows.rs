//! How long a flow keeps its backend.
use std::net::SocketAddr;

use lb_common::{BackendState, Counter, DropReason, FlowFlags, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{
        TCP, UDP,
        flag::{ACK, FIN, PSH, RST, SYN},
    },
};

use crate::{
    fixture::{REPLY, REQUEST},
    talk::{DNS, WEB, client, established, frontend, node, pod, talk},
};

#[test]
fn only_a_pure_syn_opens_a_tcp_flow() {
    for (flags, opens) in [
        (SYN, true),
        (SYN | PSH, true),
        (SYN | ACK, false),
        (SYN | FIN, false),
        (SYN | RST, false),
        (ACK, false),
        (ACK | PSH, false),
        (FIN | ACK, false),
        (RST, false),
        (RST | ACK, false),
        (0, false),
    ] {
        let mut node = node();
        let (verdict, _) = talk(&mut node, TCP, 1000).ask_with(flags, 0);
        let expected = if opens {
            REQUEST
        } else {
            Verdict::Drop(DropReason::NoFlow)
        };
        assert_eq!(verdict, expected, "flags {flags:#04x}");
        assert_eq!(
            node.tables.v4.opening.is_empty(),
            !opens,
            "flags {flags:#04x}"
        );
    }
}

#[test]
fn an_established_tcp_flow_keeps_its_backend_whatever_becomes_of_it() {
    // What is gone for good will not say goodbye: a SYN of the same port is a new beginning.
    for (state, begins_anew) in [
        (BackendState::Draining, false),
        (BackendState::Gone, true),
        (BackendState::Free, true),
    ] {
        let mut node = node();
        let kept = established(&mut node, 1000);
        for number in 1..=3 {
            node.backend(10 + number, WEB, pod(number), state);
        }
        node.candidates(WEB, &[]);
        let mut talk = talk(&mut node, TCP, 1000);
        assert_eq!(talk.ask(ACK), Some(kept), "{state:?}");
        assert_eq!(talk.answer(kept, ACK), REPLY, "{state:?}");
        talk.node.tables.clock.advance(1);
        let (verdict, _) = talk.ask_with(ACK, 0);
        let expected = if begins_anew {
            Verdict::Drop(DropReason::BackendGone)
        } else {
            REQUEST
        };
        assert_eq!(verdict, expected, "{state:?}: after a second of silence");
        let (verdict, backend) = talk.ask_with(SYN, 0);
        if begins_anew {
            let nobody = Verdict::Drop(DropReason::NoBackend);
            assert_eq!(verdict, nobody, "{state:?}: a SYN starts over");
        } else {
            assert_eq!(backend, Some(kept), "{state:?}: a SYN starts nothing");
        }
    }
}

#[test]
fn a_syn_on_a_finished_flow_chooses_anew() {
    let ends: [(&str, &[u8], &[u8], bool); 8] = [
        ("both have closed", &[FIN | ACK], &[FIN | ACK], true),
        (
            "the pod has closed, the client has reset",
            &[RST],
            &[FIN | ACK],
            true,
        ),
        (
            "somebody has reset in the client's name",
            &[RST],
            &[],
            false,
        ),
        (
            "somebody has closed and reset",
            &[FIN | ACK, RST],
            &[ACK],
            false,
        ),
        ("the pod has reset", &[], &[RST | ACK], true),
        ("only the client has closed", &[FIN | ACK], &[], false),
        ("only the pod has closed", &[], &[FIN | ACK], false),
        ("nobody has closed", &[ACK], &[ACK], false),
    ];
    for (what, of_client, of_pod, is_over) in ends {
        let mut node = node();
        let old = established(&mut node, 1000);
        for flags in of_client {
            assert_eq!(talk(&mut node, TCP, 1000).ask(*flags), Some(old), "{what}");
        }
        for flags in of_pod {
            assert_eq!(
                talk(&mut node, TCP, 1000).answer(old, *flags),
                REPLY,
                "{what}"
            );
        }
        let others: Vec<u32> = (1..=3).filter(|number| pod(*number) != old).collect();
        node.candidates(
            WEB,
            &others.iter().map(|number| 10 + number).collect::<Vec<_>>(),
        );
        let mut talk = talk(&mut node, TCP, 1000);
        let new = talk.ask(SYN).expect("a backend");
        assert_eq!(new != old, is_over, "{what}");
        let table = if is_over {
            FlowTable::Opening
        } else {
            FlowTable::Proven
        };
        assert_eq!(talk.table(), Some(table), "{what}");
    }
}

#[test]
fn a_stranger_who_speaks_in_the_clients_name_ends_no_flow() {
    let mut node = node();
    let old = established(&mut node, 1000);
    let has = |node: &HostDatapath, flag| {
        let (_, entry) = node.remembered(TCP, client(1000), frontend()).unwrap();
        entry.flags.has(flag)
    };
    for forged in [RST, RST | ACK, FIN | RST, SYN] {
        assert_eq!(talk(&mut node, TCP, 1000).ask(forged), Some(old));
    }
    assert!(has(&node, FlowFlags::RST), "it would age soon");
    assert_eq!(talk(&mut node, TCP, 1000).ask(ACK), Some(old));
    assert!(!has(&node, FlowFlags::RST) && !has(&node, FlowFlags::FIN));
    assert_eq!(talk(&mut node, TCP, 1000).ask(FIN | ACK), Some(old));
    assert!(has(&node, FlowFlags::FIN) && !has(&node, FlowFlags::RST));
}

#[test]
fn who_has_reset_gets_another_backend_if_his_has_left() {
    let mut node = node();
    let old = established(&mut node, 1000);
    assert_eq!(talk(&mut node, TCP, 1000).ask(RST), Some(old));
    let number = (1..=3).find(|number| pod(*number) == old).unwrap();
    node.backend(10 + number, WEB, old, BackendState::Draining);
    let others = (11..=13).filter(|id| *id != 10 + number);
    node.candidates(WEB, &others.collect::<Vec<_>>());
    let new = talk(&mut node, TCP, 1000).ask(SYN).unwrap();
    assert_ne!(new, old);
}

#[test]
fn a_syn_that_was_never_answered_leaves_a_backend_that_has_left() {
    let mut node = node();
    let old = talk(&mut node, TCP, 1000).ask(SYN).unwrap();
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(old), "sent again");
    let number = (1..=3).find(|number| pod(*number) == old).unwrap();
    node.backend(10 + number, WEB, old, BackendState::Draining);
    node.candidates(
        WEB,
        &(11..=13)
            .filter(|id| *id != 10 + number)
            .collect::<Vec<_>>(),
    );
    let new = talk(&mut node, TCP, 1000).ask(SYN).unwrap();
    assert_ne!(new, old, "sent again after its backend has left");
}

#[test]
fn a_udp_flow_leaves_a_backend_that_is_no_member_at_once() {
    type Change = fn(&mut HostDatapath, u32, SocketAddr);
    let changes: [(&str, Change); 4] = [
        ("serves no more", |node, id, at| {
            node.backend(id, DNS, at, BackendState::Left);
        }),
        ("is gone", |node, id, at| {
            node.backend(id, DNS, at, BackendState::Gone);
        }),
        ("serves another service", |node, id, at| {
            node.backend(id, WEB, at, BackendState::Active);
        }),
        ("was replaced by another", |node, id, _| {
            let entry = node.tables.v4.backends.get_mut(&id).expect("it is there");
            entry.generation += 1;
        }),
    ];
    for is_proven in [false, true] {
        for (what, change) in changes {
            let mut node = node();
            let mut talk = talk(&mut node, UDP, 1000);
            let old = talk.ask(0).unwrap();
            if is_proven {
                assert_eq!(talk.answer(old, 0), REPLY);
                assert_eq!(talk.ask(0), Some(old));
                assert_eq!(talk.table(), Some(FlowTable::Proven));
            }
            let id = (21..=23).find(|id| pod(id - 20) == old).unwrap();
            change(&mut node, id, old);
            node.candidates(
                DNS,
                &(21..=23).filter(|other| *other != id).collect::<Vec<_>>(),
            );
            let new = self::talk(&mut node, UDP, 1000).ask(0).unwrap();
            assert_ne!(new, old, "{what}");
            assert_eq!(node.tables.counted(Counter::FlowsRebalanced), 1, "{what}");
            node.candidates(DNS, &[]);
            for id in 21..=23 {
                node.backend(id, DNS, pod(id - 20), BackendState::Left);
            }
            let (verdict, _) = self::talk(&mut node, UDP, 1000).ask_with(0, 0);
            assert_eq!(
                verdict,
                Verdict::Drop(DropReason::NoBackend),
                "{what}, then none is left"
            );
        }
    }
}

#[test]
fn the_time_of_a_flow_is_written_once_a_second() {
    let mut node = node();
    let pod = established(&mut node, 1000);
    let seen = |node: &HostDatapath| {
        let (_, entry) = node.remembered(TCP, client(1000), frontend()).unwrap();
        entry.last_seen
    };
    let start = seen(&node);
    node.tables.clock.now = node.tables.clock.now.wrapping_add(249);
    assert_eq!(talk(&mut node, TCP, 1000).ask(ACK), Some(pod));
    assert_eq!(seen(&node), start, "less than a second later");
    node.tables.clock.now = node.tables.clock.now.wrapping_add(1);
    assert_eq!(talk(&mut node, TCP, 1000).ask(ACK), Some(pod));
    assert_eq!(seen(&node), start.wrapping_add(250), "a second later");
}

#[test]
fn goodbyes_are_kept_with_the_direction_they_came_by() {
    let mut node = node();
    let pod = established(&mut node, 1000);
    assert_eq!(talk(&mut node, TCP, 1000).ask(FIN | ACK), Some(pod));
    let (_, request) = node.remembered(TCP, client(1000), frontend()).unwrap();
    let (_, reply) = node.remembered(TCP, pod, client(1000)).unwrap();
    assert!(request.flags.has(FlowFlags::FIN) && !reply.flags.has(FlowFlags::FIN));
}

#[test]
fn who_goes_on_speaking_to_a_pod_that_is_gone_is_told_each_time_and_ages_soon() {
    let mut node = node();
    let pod = established(&mut node, 1000);
    let number = (1..=3).find(|number| self::pod(*number) == pod).unwrap();
    node.backend(10 + number, WEB, pod, BackendState::Gone);
    node.tables.clock.advance(1);
    for flags in [ACK, ACK | PSH, FIN | ACK, RST] {
        let (verdict, _) = talk(&mut node, TCP, 1000).ask_with(flags, 0);
        assert_eq!(verdict, Verdict::Drop(DropReason::BackendGone), "{flags}");
        assert_eq!(verdict.counter(), Some(Counter::DropBackendGone));
    }
    let (_, request) = node.remembered(TCP, client(1000), frontend()).unwrap();
    assert!(request.flags.has(FlowFlags::RST), "it is not over");
    // Replies are not asked for: what comes from there is from nobody, or was on its way.
    assert_eq!(talk(&mut node, TCP, 1000).answer(pod, ACK), REPLY);
}

#[test]
fn a_flow_whose_backends_id_is_somebody_elses_now_is_over() {
    let mut node = node();
    let kept = established(&mut node, 1000);
    for id in 11..=13 {
        let backend = node.tables.v4.backends.get_mut(&id);
        backend.expect("a backend").generation += 1;
    }
    node.tables.clock.advance(1);
    let (verdict, _) = talk(&mut node, TCP, 1000).ask_with(ACK, 0);
    assert_eq!(verdict, Verdict::Drop(DropReason::BackendGone), "{kept}");
}

#[test]
fn a_syn_to_a_pod_that_is_gone_chooses_anew_at_once() {
    let mut node = node();
    let old = established(&mut node, 1000);
    let number = (1..=3).find(|number| pod(*number) == old).unwrap();
    node.backend(10 + number, WEB, old, BackendState::Gone);
    let others: Vec<u32> = (11..=13).filter(|id| *id != 10 + number).collect();
    node.candidates(WEB, &others);
    let new = talk(&mut node, TCP, 1000).ask(SYN);
    assert!(new.is_some_and(|new| new != old), "{new:?}");
}

#[test]
fn only_a_pure_syn_begins_anew_on_a_finished_flow() {
    for flags in [SYN | ACK, SYN | FIN, SYN | RST, ACK, FIN | ACK] {
        let mut node = node();
        let old = established(&mut node, 1000);
        assert_eq!(talk(&mut node, TCP, 1000).answer(old, RST), REPLY);
        let others = (1..=3).filter(|number| pod(*number) != old);
        node.candidates(WEB, &others.map(|number| 10 + number).collect::<Vec<_>>());
        let to = talk(&mut node, TCP, 1000).ask(flags);
        assert_eq!(to, Some(old), "flags {flags:#04x}");
    }
}

#[test]
fn a_udp_flow_says_no_goodbyes_whatever_the_packet_before_it_said() {
    let mut node = node();
    let opened = talk(&mut node, UDP, 1000).ask(0);
    let tcp = established(&mut node, 2000);
    assert_eq!(talk(&mut node, TCP, 2000).ask(FIN | RST), Some(tcp));
    assert_eq!(talk(&mut node, UDP, 1000).ask(0), opened);
    let (_, entry) = node.remembered(UDP, client(1000), frontend()).unwrap();
    assert!(!entry.flags.has(FlowFlags::FIN) && !entry.flags.has(FlowFlags::RST));
}
