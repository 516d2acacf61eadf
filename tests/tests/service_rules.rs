//! Whatever the objects and in whatever order the agent hears of them: a packet goes where Kubernetes' rules say. The rules
//! are those of [`tests::oracle::kubernetes_rules`], which know nothing of the agent; the answers are what `waggle trace` gives.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_common::Protocol;
use lb_userspace::trace::{self, Names, NodeContext, Origin, Outcome, Tracer};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tests::oracle::duplicated_deliveries::{Setting, agent, is_of_other_proxy, questions, setting};
use tests::oracle::kubernetes_rules::{self as rules, Answer, Objects};

/// What `waggle trace` says of the objects.
fn tracer(objects: &Objects, setting: &Setting, order: &[(u16, bool)]) -> Tracer {
    let surroundings = NodeContext::new(setting.place());
    let (agent, now) = agent(objects, setting, order);
    let names = Names::of(&agent.view(now));
    Tracer::new(agent.maps().contents.clone(), names, surroundings)
}

fn ask(tracer: &Tracer, question: &rules::Question) -> trace::Answer {
    let origin = match question.place {
        rules::Place::Pod => Origin::Pod,
        rules::Place::Outside => Origin::Outside,
        rules::Place::Host => Origin::Host,
    };
    let protocol = match question.protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => Protocol::Sctp,
    };
    let (source, destination) = (question.source, question.destination);
    let question = trace::Question::new(Some(origin), protocol, source, destination).unwrap();
    tracer.ask(&question)
}

/// What is wrong with an answer, if something is.
fn wrong(
    objects: &Objects,
    question: &rules::Question,
    expected: &Answer,
    answer: &trace::Answer,
) -> Option<String> {
    let problem = |what: &str| {
        Some(format!(
            "{what}: {question:?}\n  rules: {expected:?}\n  trace: {answer:?}"
        ))
    };
    match (expected, answer.verdict) {
        // The kernel has no hook for the SCTP sockets of the node's processes.
        (_, Outcome::Pass)
            if question.place == rules::Place::Host && question.protocol == "SCTP" =>
        {
            None
        }
        (
            Answer::Dnat {
                candidates,
                local,
                masquerade,
            },
            Outcome::Dnat,
        ) => {
            let found: BTreeSet<SocketAddr> = answer
                .candidates
                .iter()
                .map(|it| it.parse().unwrap())
                .collect();
            if found != *candidates {
                return problem("other candidates");
            }
            let backend: SocketAddr = answer.backend.as_ref()?.parse().unwrap();
            let returns = backend.ip() == question.source.ip();
            // The node's own processes have its address as it is; and nobody else has a pod's address.
            if question.place == rules::Place::Host || returns && !local.contains(&backend) {
                return None;
            }
            if answer.masquerade != (*masquerade || returns) {
                return problem("masquerade");
            }
            None
        }
        (Answer::Pass, Outcome::Pass)
        | (Answer::Drop, Outcome::Drop)
        | (Answer::Reject, Outcome::Reject) => None,
        // docs/kube-proxy.md: services-of-other-proxies.
        (Answer::Drop, Outcome::Pass) if is_of_other_proxy(objects, question) => None,
        _ => problem("another verdict"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn packets_go_where_kubernetes_rules_say(
        objects in rules::random::objects(),
        setting in setting(),
        order in prop::collection::vec(any::<(u16, bool)>(), 16),
    ) {
        let tracer = tracer(&objects, &setting, &order);
        let node = setting.node();
        for question in questions(&objects) {
            let expected = rules::answer(&objects, &node, &question);
            let answer = ask(&tracer, &question);
            if let Some(problem) = wrong(&objects, &question, &expected, &answer) {
                let shown = serde_json::to_string(&(&objects.services, &objects.slices)).unwrap();
                prop_assert!(false, "{problem}\n{shown}");
            }
        }
    }
}
