//! How a flow proves itself and moves to FLOWS, and what puts back what the LRU has thrown out.
use lb_common::{Counter, FlowEntry, FlowFlags, FlowSide, Port, V4, Verdict};
use lb_ebpf::context::environment::FlowTable;
use tests::{
    oracle::host_datapath::{HostDatapath, tuple},
    packets::dissect::{
        TCP, UDP,
        flag::{ACK, FIN, SYN},
    },
    packets::packet_builder::eth,
};

use crate::{
    fixture::{REPLY, REQUEST},
    talk::{client, established, frontend, node, talk},
};

#[test]
fn an_acknowledgement_of_what_the_pod_can_have_sent_proves_a_tcp_client() {
    // The pod's SYN/ACK carries the number 900. Before the client has answered it, the pod may send 65,535 bytes more.
    for (acknowledgement, flags, proves) in [
        (901, ACK, true),
        (901, ACK | FIN, true),
        (900, ACK, false),
        (902, ACK, true),
        (901 + 1460, ACK, true),
        (901 + 65_535, ACK, true),
        (901 + 65_536, ACK, false),
        (0, ACK, false),
        (901, SYN, false),
        (901, FIN, false),
    ] {
        let mut node = node();
        let mut talk = talk(&mut node, TCP, 1000);
        let pod = talk.ask(SYN).unwrap();
        assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
        let (verdict, to) = talk.ask_with(flags, acknowledgement);
        assert_eq!((verdict, to), (REQUEST, Some(pod)));
        let table = if proves {
            FlowTable::Proven
        } else {
            FlowTable::Opening
        };
        assert_eq!(
            talk.table(),
            Some(table),
            "{acknowledgement} with {flags:#04x}"
        );
        let reply = node
            .remembered(TCP, pod, client(1000))
            .map(|(table, _)| table);
        assert_eq!(reply, Some(table), "both halves move, or none");
        let proven = node.tables.counted(Counter::FlowsProven);
        assert_eq!(proven, u64::from(proves));
        assert_eq!(node.tables.v4.opening.is_empty(), proves);
    }
}

/// TCP Fast Open, or a SYN/ACK whose acknowledgement was lost: the client acknowledges data, too.
#[test]
fn the_first_acknowledgement_may_be_one_of_data() {
    for number in [900, u32::MAX, u32::MAX - 700] {
        let mut node = node();
        let pod = talk(&mut node, TCP, 1000).ask(SYN).unwrap();
        let reply = eth().between(TCP, pod, client(1000));
        let first = reply.clone().flags(SYN | ACK).sequence(number);
        assert_eq!(node.leave(&first.build()).0, REPLY);
        let data = reply
            .flags(ACK)
            .sequence(number.wrapping_add(1))
            .payload(&[7; 1400]);
        assert_eq!(node.leave(&data.build()).0, REPLY);
        let mut talk = talk(&mut node, TCP, 1000);
        let acknowledged = number.wrapping_add(1401);
        assert_eq!(talk.ask_with(ACK, acknowledged), (REQUEST, Some(pod)));
        assert_eq!(talk.table(), Some(FlowTable::Proven), "{number}");
    }
}

#[test]
fn a_challenge_that_was_lost_is_made_again_by_the_pods_next_segment() {
    let mut node = node();
    let pod = talk(&mut node, TCP, 1000).ask(SYN).unwrap();
    assert_eq!(talk(&mut node, TCP, 1000).answer(pod, SYN | ACK), REPLY);
    // Another CPU wrote the flags at the same time.
    let request = tuple(TCP, client(1000), frontend()).unwrap();
    let mut entry = node.tables.v4.opening.get(&request).expect("a flow");
    entry.flags = FlowFlags::REQUEST;
    node.tables.v4.opening.put(request, entry);
    assert_eq!(talk(&mut node, TCP, 1000).ask_with(ACK, 901).0, REQUEST);
    let data = eth().between(TCP, pod, client(1000)).flags(ACK);
    assert_eq!(
        node.leave(&data.sequence(901).payload(b"data").build()).0,
        REPLY
    );
    let mut talk = talk(&mut node, TCP, 1000);
    assert_eq!(talk.ask_with(ACK, 905), (REQUEST, Some(pod)));
    assert_eq!(talk.table(), Some(FlowTable::Proven));
}

#[test]
fn a_pod_that_has_gone_on_far_asks_for_what_it_sends_now() {
    let mut node = node();
    let pod = talk(&mut node, TCP, 1000).ask(SYN).unwrap();
    assert_eq!(talk(&mut node, TCP, 1000).answer(pod, SYN | ACK), REPLY);
    let far = 901 + 3 * 65_536;
    let data = eth().between(TCP, pod, client(1000)).flags(ACK);
    assert_eq!(
        node.leave(&data.sequence(far).payload(b"data").build()).0,
        REPLY
    );
    let mut talk = talk(&mut node, TCP, 1000);
    assert_eq!(talk.ask_with(ACK, far + 4), (REQUEST, Some(pod)));
    assert_eq!(talk.table(), Some(FlowTable::Proven));
}

#[test]
fn a_client_that_was_not_answered_proves_nothing() {
    for protocol in [TCP, UDP] {
        let mut node = node();
        let mut talk = talk(&mut node, protocol, 1000);
        assert!(talk.ask(SYN).is_some());
        for _ in 0..3 {
            assert_eq!(talk.ask_with(ACK, 1).0, REQUEST);
        }
        assert_eq!(talk.table(), Some(FlowTable::Opening));
    }
}

#[test]
fn a_udp_client_is_proven_when_it_goes_on_after_an_answer() {
    let mut node = node();
    let mut talk = talk(&mut node, UDP, 1000);
    let pod = talk.ask(0).unwrap();
    assert_eq!(talk.answer(pod, 0), REPLY);
    assert_eq!(talk.table(), Some(FlowTable::Opening));
    assert_eq!(talk.ask(0), Some(pod));
    assert_eq!(talk.table(), Some(FlowTable::Proven));
}

#[test]
fn a_udp_client_proves_so_many_flows_a_minute_and_no_more() {
    let mut node = node();
    node.tables.config.udp_flows_per_client = 5;
    let prove = |node: &mut _, port| {
        let mut talk = talk(node, UDP, port);
        let pod = talk.ask(0).unwrap();
        assert_eq!(talk.answer(pod, 0), REPLY);
        assert_eq!(
            talk.ask(0),
            Some(pod),
            "it works, wherever it is remembered"
        );
        talk.table() == Some(FlowTable::Proven)
    };
    let proven = (1000..1010).filter(|port| prove(&mut node, *port)).count();
    assert_eq!(proven, 5);
    node.tables.clock.advance(59);
    assert!(!prove(&mut node, 2000), "59 s later");
    node.tables.clock.advance(1);
    assert!(prove(&mut node, 2001), "a minute later");
}

#[test]
fn where_flows_is_full_a_flow_stays_where_it_is_and_works() {
    for capacity in [0, 1] {
        let mut node = node();
        node.tables.v4.proven.capacity = capacity;
        let mut talk = talk(&mut node, TCP, 1000);
        let pod = talk.ask(SYN).unwrap();
        assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
        for _ in 0..3 {
            assert_eq!(talk.ask_with(ACK, 901), (REQUEST, Some(pod)));
            assert_eq!(talk.answer(pod, ACK), REPLY);
        }
        assert_eq!(talk.table(), Some(FlowTable::Opening));
        assert!(
            node.tables.v4.proven.is_empty(),
            "half a flow stays in FLOWS"
        );
        assert_eq!(
            node.tables.counted(Counter::FlowsTableFull),
            1,
            "a flow counts once"
        );
        node.tables.v4.proven.capacity = 2;
        node.tables.clock.advance(1);
        assert_eq!(self::talk(&mut node, TCP, 1000).ask(ACK), Some(pod));
        assert_eq!(
            self::talk(&mut node, TCP, 1000).table(),
            Some(FlowTable::Proven),
            "room again"
        );
    }
}

#[test]
fn a_packet_of_either_direction_puts_the_evicted_other_half_back() {
    let mut node = node();
    let mut opened = talk(&mut node, TCP, 1000);
    let pod = opened.ask(SYN).unwrap();
    let request = tuple(TCP, client(1000), frontend()).unwrap();
    let reply = tuple(TCP, pod, client(1000)).unwrap().leaving();
    let entries =
        |node: &HostDatapath| [request, reply].map(|key| node.tables.v4.opening.get(&key));
    let [own, other] = entries(&node);

    node.tables.v4.opening.remove(&reply);
    assert_eq!(talk(&mut node, TCP, 1000).ask(SYN), Some(pod));
    assert_eq!(entries(&node), [own, other], "the reply half");

    node.tables.v4.opening.remove(&request);
    assert_eq!(talk(&mut node, TCP, 1000).answer(pod, ACK), REPLY);
    let [restored, _] = entries(&node);
    let (restored, own) = (restored.unwrap(), own.unwrap());
    assert_eq!((restored.address, restored.port), (own.address, own.port));
    assert_eq!(
        (restored.backend_id, restored.generation),
        (own.backend_id, own.generation)
    );
    assert_eq!(node.tables.counted(Counter::FlowsRepaired), 2);
}

#[test]
fn the_halves_of_a_proven_flow_stay_where_they_are() {
    let mut node = node();
    let pod = established(&mut node, 1000);
    for _ in 0..3 {
        assert_eq!(talk(&mut node, TCP, 1000).ask(ACK), Some(pod));
        assert_eq!(talk(&mut node, TCP, 1000).answer(pod, ACK), REPLY);
        node.tables.clock.advance(100);
    }
    assert!(node.tables.v4.opening.is_empty());
    assert_eq!(node.tables.v4.proven.len(), 2);
    let verdict = talk(&mut node, TCP, 1000).answer(pod, SYN | ACK);
    assert!(
        matches!(verdict, Verdict::Translated(_)),
        "a late SYN/ACK: {verdict:?}"
    );
    assert_eq!(node.tables.counted(Counter::FlowsProven), 1);
}

#[test]
fn the_packet_that_proves_a_flow_leaves_its_own_trace_there() {
    let mut node = node();
    let mut talk = talk(&mut node, TCP, 1000);
    let pod = talk.ask(SYN).unwrap();
    assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
    talk.node.tables.clock.advance(5);
    assert_eq!(talk.ask_with(ACK | FIN, 901), (REQUEST, Some(pod)));
    let (table, entry) = node.remembered(TCP, client(1000), frontend()).unwrap();
    assert_eq!(table, FlowTable::Proven);
    assert!(entry.flags.has(FlowFlags::FIN), "the FIN is lost");
    assert_eq!(
        entry.last_seen, node.tables.clock.now,
        "the time is that of an earlier packet"
    );
}

#[test]
fn proof_takes_no_reply_tuple_away_from_another_frontend() {
    type Change = fn(&mut FlowEntry<V4>);
    let changes: [(&str, Change); 4] = [
        ("address", |entry| entry.address = [10, 96, 0, 77].into()),
        ("port", |entry| entry.port = Port::new(81)),
        ("client's port", |entry| entry.other_port = Port::new(999)),
        ("side", |entry| entry.side = FlowSide::Destination.byte()),
    ];
    for (what, change) in changes {
        let mut node = node();
        let mut ours = talk(&mut node, UDP, 1000);
        let pod = ours.ask(0).unwrap();
        assert_eq!(ours.answer(pod, 0), REPLY);
        // Our reply half is evicted, and a flow through another frontend gets the tuple.
        let reply = tuple(UDP, pod, client(1000)).unwrap().leaving();
        let mut theirs = node.tables.v4.opening.remove(&reply).unwrap();
        change(&mut theirs);
        node.tables.v4.opening.put(reply, theirs);
        assert_eq!(talk(&mut node, UDP, 1000).ask(0), Some(pod));
        assert_eq!(node.tables.v4.opening.get(&reply), Some(theirs), "{what}");
        assert!(node.tables.v4.proven.is_empty(), "{what}");
    }
}

#[test]
fn a_number_that_was_asked_for_stays_while_the_pod_goes_on() {
    // What the pod sends after its SYN/ACK with the number 900.
    for flags in [ACK, ACK | FIN, SYN] {
        let mut node = node();
        let mut talk = talk(&mut node, TCP, 1000);
        let pod = talk.ask(SYN).unwrap();
        assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
        let later = eth().between(TCP, pod, client(1000)).flags(flags);
        assert_eq!(node.leave(&later.sequence(5000).build()).0, REPLY);
        for (number, table) in [(900, FlowTable::Opening), (901, FlowTable::Proven)] {
            let mut talk = self::talk(&mut node, TCP, 1000);
            assert_eq!(talk.ask_with(ACK, number).0, REQUEST);
            assert_eq!(talk.table(), Some(table), "{number} after {flags:#04x}");
        }
    }
}

#[test]
fn the_number_zero_proves_nobody_to_whom_no_number_was_sent() {
    let mut node = node();
    let mut talk = talk(&mut node, TCP, 1000);
    assert!(talk.ask(SYN).is_some());
    assert_eq!(talk.ask_with(ACK, 0).0, REQUEST);
    assert_eq!(talk.table(), Some(FlowTable::Opening));
}

#[test]
fn what_the_pod_said_before_the_proof_is_not_forgotten_by_it() {
    let mut node = node();
    let mut talk = talk(&mut node, TCP, 1000);
    let pod = talk.ask(SYN).unwrap();
    assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
    assert_eq!(talk.answer(pod, FIN | ACK), REPLY);
    assert_eq!(talk.ask_with(ACK, 901), (REQUEST, Some(pod)));
    let (table, reply) = node.remembered(TCP, pod, client(1000)).unwrap();
    assert_eq!(table, FlowTable::Proven);
    assert!(reply.flags.has(FlowFlags::FIN), "the pod's FIN is lost");
    let (_, request) = node.remembered(TCP, client(1000), frontend()).unwrap();
    assert!(
        !request.flags.has(FlowFlags::CHALLENGED),
        "of no use any more"
    );
}

#[test]
fn what_found_no_room_is_counted_once_and_tried_once_a_second() {
    let mut node = node();
    node.tables.v4.proven.capacity = 0;
    let mut talk = talk(&mut node, TCP, 1000);
    let pod = talk.ask(SYN).unwrap();
    assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
    assert_eq!(talk.ask_with(ACK, 901), (REQUEST, Some(pod)));
    for _ in 0..3 {
        node.tables.clock.advance(1);
        assert_eq!(self::talk(&mut node, TCP, 1000).ask(ACK), Some(pod));
    }
    assert_eq!(node.tables.counted(Counter::FlowsTableFull), 1);
    node.tables.v4.proven.capacity = 2;
    for (seconds, table) in [(0, FlowTable::Opening), (1, FlowTable::Proven)] {
        node.tables.clock.advance(seconds);
        let mut talk = self::talk(&mut node, TCP, 1000);
        assert_eq!(talk.ask(ACK), Some(pod));
        assert_eq!(talk.table(), Some(table), "{seconds} s later");
    }
}

#[test]
fn what_found_no_room_outlives_its_service_as_if_it_had() {
    for capacity in [0, 2] {
        let mut node = node();
        node.tables.v4.proven.capacity = capacity;
        let mut talk = talk(&mut node, TCP, 1000);
        let pod = talk.ask(SYN).unwrap();
        assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
        assert_eq!(talk.ask_with(ACK, 901), (REQUEST, Some(pod)));
        node.tables.v4.frontends.clear();
        let mut talk = self::talk(&mut node, TCP, 1000);
        assert_eq!(talk.ask(ACK), Some(pod), "room for {capacity}");
    }
}

#[test]
fn a_half_that_is_put_back_has_not_said_what_the_other_has() {
    let mut node = node();
    let mut opened = talk(&mut node, TCP, 1000);
    let pod = opened.ask(SYN).unwrap();
    assert_eq!(opened.answer(pod, SYN | ACK), REPLY);
    assert_eq!(opened.ask(FIN | ACK), Some(pod));
    let reply = tuple(TCP, pod, client(1000)).unwrap().leaving();
    node.tables.v4.opening.remove(&reply).expect("a flow");
    assert_eq!(talk(&mut node, TCP, 1000).ask(ACK), Some(pod));
    let restored = node.tables.v4.opening.get(&reply).expect("restored");
    assert_eq!(restored.flags, FlowFlags::NONE);
}
