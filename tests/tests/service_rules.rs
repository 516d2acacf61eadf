//! Whatever the objects and in whatever order the agent hears of them: a packet goes where Kubernetes' rules say. The rules
//! are those of [`tests::kubernetes_rules`], which know nothing of the agent; the answers are what `waggle trace` gives.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::Protocol;
use lb_userspace::agent::{Agent, Event, Settings, Source};
use lb_userspace::convert;
use lb_userspace::maps::fake::FakeMaps;
use lb_userspace::model::{DetectLocal, Place};
use lb_userspace::trace::{self, Names, Origin, Outcome, Surroundings, Tracer};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tests::kubernetes_rules::{self as rules, Answer, Node, Objects, Prefix};
use tests::peers;
use tests::scenario::settings;

const CLUSTER_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/12", "fd00:10:96::/112"];
const NODE: [&str; 2] = ["192.168.77.11", "fd00:192:168:77::11"];

/// Who asks, from where: the last one is a pod of another node.
const SENDERS: [(rules::Place, [&str; 2]); 5] = [
    (rules::Place::Pod, ["10.244.1.100", "fd00:10:244:1::100"]),
    (rules::Place::Pod, ["10.244.1.11", "fd00:10:244:1::11"]),
    (
        rules::Place::Outside,
        ["192.168.77.50", "fd00:192:168:77::50"],
    ),
    (rules::Place::Host, NODE),
    (rules::Place::Outside, ["10.244.2.11", "fd00:10:244:2::11"]),
];

/// The node under test, told twice.
#[derive(Clone, Debug)]
struct Setting {
    zone: Option<&'static str>,
    knows_pods: bool,
    masquerade_all: bool,
    ignore_external_ips: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    let zone = prop::option::of(Just("zone-a"));
    let rarely = || prop::bool::weighted(0.2);
    (zone, any::<bool>(), rarely(), rarely()).prop_map(
        |(zone, knows_pods, masquerade_all, ignore_external_ips)| Setting {
            zone,
            knows_pods,
            masquerade_all,
            ignore_external_ips,
        },
    )
}

impl Setting {
    fn node(&self) -> Node {
        let prefixes = |of: [&str; 2]| of.iter().map(|text| Prefix::parse(text).unwrap()).collect();
        Node {
            name: "node1".to_owned(),
            zone: self.zone.map(str::to_owned),
            addresses: NODE.iter().map(|text| text.parse().unwrap()).collect(),
            cluster_cidrs: if self.knows_pods {
                prefixes(CLUSTER_CIDRS)
            } else {
                Vec::new()
            },
            service_cidrs: prefixes(SERVICE_CIDRS),
            masquerade_all: self.masquerade_all,
            ignore_external_ips: self.ignore_external_ips,
        }
    }

    fn place(&self) -> Place {
        let prefixes = |of: [&str; 2]| of.iter().map(|text| text.parse().unwrap()).collect();
        Place {
            node: "node1".to_owned(),
            zone: self.zone.map(str::to_owned),
            addresses: NODE.iter().map(|text| text.parse().unwrap()).collect(),
            cluster_cidrs: if self.knows_pods {
                prefixes(CLUSTER_CIDRS)
            } else {
                Vec::new()
            },
            service_cidrs: prefixes(SERVICE_CIDRS),
            masquerade_all: self.masquerade_all,
            ignore_external_ips: self.ignore_external_ips,
            detect_local: DetectLocal::ClusterCidr,
            ..Place::default()
        }
    }
}

/// The agent hears of the objects one by one; `order` shuffles them and says after which it has a rest.
fn tracer(objects: &Objects, setting: &Setting, order: &[(u16, bool)]) -> Tracer {
    let place = setting.place();
    let surroundings = Surroundings::new(place.clone());
    let mut local = place.clone();
    local.local_addresses.extend(&place.addresses);
    let settings = Settings {
        sources: BTreeSet::from([Source::Services, Source::EndpointSlices]),
        place: local,
        ..settings().unwrap()
    };
    let mut agent = Agent::new(settings, FakeMaps::default()).unwrap();
    let mut now = Duration::ZERO;
    let services = objects.services.iter().map(convert::service);
    let mut events: Vec<Event> = services
        .map(|it| Event::ServiceApplied(Box::new(it)))
        .collect();
    let slices = objects.slices.iter().filter_map(convert::endpoint_slice);
    events.extend(slices.map(|it| Event::SliceApplied(Box::new(it))));
    let mut events: Vec<_> = events.into_iter().zip(order.iter().cycle()).collect();
    events.sort_by_key(|(_, (rank, _))| *rank);
    agent.handle(Event::ServicesListed(Vec::new()), now);
    agent.handle(Event::SlicesListed(Vec::new()), now);
    for (event, (_, has_rest)) in events {
        agent.handle(event, now);
        if *has_rest {
            now += Duration::from_secs(3);
            agent.reconcile(&|| now);
        }
    }
    now += Duration::from_secs(10);
    agent.reconcile(&|| now);
    let names = Names::of(&agent.view(now));
    Tracer::new(agent.maps().contents.clone(), names, surroundings)
}

/// Everything that can be asked about the objects.
fn questions(objects: &Objects) -> Vec<rules::Question> {
    let node = NODE.map(|text| text.parse::<IpAddr>().unwrap());
    let mut all = Vec::new();
    let mut asked = BTreeSet::new();
    // By SCTP everything is asked that is asked by TCP.
    let mut services = objects.services.clone();
    let specs = services.iter_mut().filter_map(|it| it.spec.as_mut());
    for port in specs.flat_map(|it| it.ports.iter_mut().flatten()) {
        port.protocol.take_if(|it| it == "SCTP");
    }
    for question in peers::questions(&services, &node) {
        let protocols: &[_] = match question.protocol {
            peers::Protocol::Tcp => &["TCP", "SCTP"],
            peers::Protocol::Udp => &["UDP"],
        };
        if !asked.insert((question.protocol, question.to)) {
            continue;
        }
        for (place, sources) in SENDERS {
            let source = sources[usize::from(question.to.is_ipv6())].parse().unwrap();
            all.extend(protocols.iter().map(|protocol| rules::Question {
                place,
                protocol,
                source: SocketAddr::new(source, 40_000),
                destination: question.to,
            }));
        }
    }
    all
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

fn is_of_other_proxy(objects: &Objects, question: &rules::Question) -> bool {
    let address = question.destination.ip().to_string();
    objects.services.iter().any(|service| {
        let labels = service.metadata.labels.iter().flatten();
        let spec = service.spec.iter();
        let mut addresses =
            spec.flat_map(|it| it.cluster_ip.iter().chain(it.cluster_ips.iter().flatten()));
        { labels }.any(|(name, _)| name.ends_with("/service-proxy-name"))
            && addresses.any(|it| *it == address)
    })
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
