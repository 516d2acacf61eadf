//! Whatever the objects and in whatever order the agent hears of them: the programs in the kernel, over the maps that the
//! agent has filled, send a packet where Kubernetes' rules say. The rules are those of [`tests::oracle::kubernetes_rules`].
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use lb_common::{Counter, DatapathConfig, DeviceEntry};
use lb_ebpf::bytes::parse::Link;
use lb_userspace::maps::MapContents;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tests::{
    machine::kernel_program::{KernelProgram, Ran},
    oracle::duplicated_deliveries::{agent, is_of_other_proxy, questions, setting},
    oracle::kubernetes_rules::{self as rules, Answer, Objects, Place, Question},
    oracle::memory_tables::MemoryTables,
    packets::dissect::{SCTP, TCP, UDP, assert_checksums, dissect},
    packets::packet_builder::eth,
    require_root,
};

const ENTER: &str = "tc_ingress_ethernet";
const LEAVE: &str = "tc_egress_ethernet";
/// `TC_ACT_UNSPEC`: translated, or not ours.
const GO_ON: i32 = -1;
/// Test runs are on `lo`.
const INTERFACE: u32 = 1;
/// Whom a masquerade makes the sender.
const MASQUERADE: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(10, 1, 0, 1),
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1),
);
/// Drops of which the sender is told.
const TOLD: [Counter; 2] = [Counter::DropNoBackend, Counter::DropNoSuchPort];

fn kernel(contents: &MapContents) -> Result<KernelProgram> {
    let mut tables = MemoryTables::from(contents);
    let device = DeviceEntry {
        masquerade_v4: MASQUERADE.0.into(),
        masquerade_v6: MASQUERADE.1.into(),
        ..DeviceEntry::default()
    };
    tables.devices.insert(INTERFACE, device);
    let object = lb_userspace::datapath::object();
    let mut kernel = KernelProgram::load(object, &DatapathConfig::DEFAULT)?;
    kernel.fill(&tables)?;
    Ok(kernel)
}

/// What becomes of a packet on its way through the node, as the rules would say it; of candidates it shows one.
fn answer(kernel: &mut KernelProgram, question: &Question) -> Result<Seen> {
    let protocol = match question.protocol {
        "TCP" => TCP,
        "UDP" => UDP,
        _ => SCTP,
    };
    let packet = eth().between(protocol, question.source, question.destination);
    let packet = packet.syn().build();
    let told_before = told(kernel)?;
    let Ran { action, bytes, .. } = kernel.run(ENTER, &packet, 1)?;
    if action != GO_ON {
        ensure!(bytes == packet, "it is dropped, but changed");
        return Ok(if told(kernel)? > told_before {
            Seen::Reject
        } else {
            Seen::Drop
        });
    }
    if bytes == packet {
        return Ok(Seen::Pass);
    }
    assert_checksums(&bytes, Link::Ethernet);
    let routed = dissect(&bytes, Link::Ethernet).unwrap();
    let from = question.source.ip();
    ensure!(routed.source.ip() == from, "routed from {}", routed.source);
    let left = kernel.run(LEAVE, &bytes, 1)?;
    ensure!(left.action == GO_ON, "{left:?} on egress");
    assert_checksums(&left.bytes, Link::Ethernet);
    let sent = dissect(&left.bytes, Link::Ethernet).unwrap();
    ensure!(
        sent.destination == routed.destination,
        "sent to {}",
        sent.destination
    );
    let (v4, v6) = MASQUERADE;
    let is_masqueraded = [IpAddr::V4(v4), IpAddr::V6(v6)].contains(&sent.source.ip());
    ensure!(
        is_masqueraded || sent.source == routed.source,
        "sent from {}",
        sent.source
    );
    Ok(Seen::Dnat {
        backend: sent.destination,
        is_masqueraded,
    })
}

/// How many senders have been told.
fn told(kernel: &mut KernelProgram) -> Result<u64> {
    let mut sum = 0;
    for counter in TOLD {
        sum += kernel.counted(counter)?;
    }
    Ok(sum)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Dnat {
        backend: std::net::SocketAddr,
        is_masqueraded: bool,
    },
    Pass,
    Drop,
    Reject,
}

fn is_right(objects: &Objects, question: &Question, expected: &Answer, seen: Seen) -> bool {
    match (expected, seen) {
        (
            Answer::Dnat {
                candidates,
                local,
                masquerade,
            },
            Seen::Dnat {
                backend,
                is_masqueraded,
            },
        ) => {
            let returns = backend.ip() == question.source.ip();
            // Nobody else has the address of a pod of this node.
            let cannot_be = returns && !local.contains(&backend);
            candidates.contains(&backend)
                && (cannot_be || is_masqueraded == (*masquerade || returns))
        }
        (Answer::Drop, Seen::Pass) => is_of_other_proxy(objects, question),
        (Answer::Pass, Seen::Pass)
        | (Answer::Drop, Seen::Drop)
        | (Answer::Reject, Seen::Reject) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        // Each case loads the programs.
        max_shrink_iters: 100,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn packets_in_the_kernel_go_where_kubernetes_rules_say(
        objects in rules::random::objects(),
        setting in setting(),
        order in prop::collection::vec(any::<(u16, bool)>(), 16),
    ) {
        if !require_root() {
            return Ok(());
        }
        let (agent, _) = agent(&objects, &setting, &order);
        let mut kernel = kernel(&agent.maps().contents).unwrap();
        let node = setting.node();
        // A process of the node meets the socket hooks, which have no test runs.
        let asked = questions(&objects).into_iter().filter(|it| it.place != Place::Host);
        for (port, mut question) in (10_000..).zip(asked) {
            question.source.set_port(port);
            let expected = rules::answer(&objects, &node, &question);
            let seen = answer(&mut kernel, &question);
            let is_right = seen.as_ref().is_ok_and(|it| is_right(&objects, &question, &expected, *it));
            if !is_right {
                let shown = serde_json::to_string(&(&objects.services, &objects.slices)).unwrap();
                prop_assert!(false, "{question:?}\n  rules: {expected:?}\n  kernel: {seen:?}\n{shown}");
            }
        }
    }
}
