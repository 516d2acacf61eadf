//! Random objects as an agent hears of them, on a node that [`kubernetes_rules`](crate::oracle::kubernetes_rules) are told of as well;
//! and what can be asked about them.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot set itself up has failed"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use lb_userspace::agent::{Agent, Event, Settings, Source};
use lb_userspace::convert;
use lb_userspace::maps::fake::FakeMaps;
use lb_userspace::model::{DetectLocal, Place};
use proptest::prelude::*;

use crate::cluster::scenario::settings;
use crate::oracle::kubernetes_rules::{self as rules, Node, Objects, Prefix};
use crate::peers;

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
pub struct Setting {
    /// The node's zone.
    pub zone: Option<&'static str>,
    /// It is told where pods have their addresses.
    pub knows_pods: bool,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// `--ignore-external-ips`.
    pub ignore_external_ips: bool,
}

/// Any.
pub fn setting() -> impl Strategy<Value = Setting> {
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
    /// As the rules are told.
    pub fn node(&self) -> Node {
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

    /// As the agent is told.
    pub fn place(&self) -> Place {
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

/// An object as the agent reads it.
fn read<T: DeserializeOwned>(object: &impl Serialize) -> T {
    serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
}

/// The agent hears of the objects one by one; `order` shuffles them and says after which it has a rest. With it the time that
/// has come.
pub fn agent(
    objects: &Objects,
    setting: &Setting,
    order: &[(u16, bool)],
) -> (Agent<FakeMaps>, Duration) {
    let mut place = setting.place();
    let addresses = place.addresses.clone();
    place.local_addresses.extend(&addresses);
    let settings = Settings {
        sources: BTreeSet::from([Source::Services, Source::EndpointSlices]),
        place,
        ..settings().unwrap()
    };
    let mut agent = Agent::new(settings, FakeMaps::default()).unwrap();
    let mut now = Duration::ZERO;
    let services = objects
        .services
        .iter()
        .map(|it| convert::service(&read(it)));
    let mut events: Vec<Event> = services
        .map(|it| Event::ServiceApplied(Box::new(it)))
        .collect();
    let slices = objects.slices.iter();
    let slices = slices.filter_map(|it| convert::endpoint_slice(&read(it)));
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
    (agent, now)
}

/// Everything that can be asked about the objects.
pub fn questions(objects: &Objects) -> Vec<rules::Question> {
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

/// Whether the address is that of a Service that another proxy serves: docs/kube-proxy.md, services-of-other-proxies.
pub fn is_of_other_proxy(objects: &Objects, question: &rules::Question) -> bool {
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
