//! Random Services with their slices, as clusters have them and as nobody would write them.
//!
//! No two Services want one address and port: who has it then is for other tests. Pods are those of [`crate::peers`],
//! so that the same objects can be tried with real clients.

mod written;

use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::option::{self, weighted};
use proptest::prelude::*;
use proptest::sample::select;

use super::Objects;
use written::written;

/// Ports on which pods serve.
const TARGETS: [u16; 3] = [8080, 8081, 5353];

/// How many pods there are: half of them on each node.
const PODS: u8 = 6;

/// A few Services and what belongs to them.
pub fn objects() -> impl Strategy<Value = Objects> {
    objects_of(1..=4)
}

/// So many Services, at most 24, and what belongs to them.
pub fn objects_of(services: RangeInclusive<usize>) -> impl Strategy<Value = Objects> {
    vec(service(), services).prop_map(|all| {
        let mut objects = Objects::default();
        for (number, (service, slices)) in (1..).zip(&all) {
            let (service, slices) = written(number, service, slices);
            let service = serde_json::from_value(service);
            objects.services.extend(service.ok());
            let slices = slices.into_iter().map(serde_json::from_value);
            objects.slices.extend(slices.filter_map(Result::ok));
        }
        objects
    })
}

#[derive(Clone, Debug)]
struct Service {
    kind: Option<&'static str>,
    families: &'static [&'static str],
    is_short: bool,
    policies: [Option<&'static str>; 2],
    is_sticky: bool,
    ports: Vec<Port>,
    /// Whether of IPv6, and the mode.
    ingress: Vec<(bool, Option<&'static str>)>,
    /// Whether of IPv6.
    external: Vec<bool>,
    ranges: Vec<&'static str>,
    oddity: Option<Oddity>,
}

#[derive(Clone, Copy, Debug)]
enum Oddity {
    Headless,
    OtherProxy,
    PublishNotReady,
}

#[derive(Clone, Copy, Debug)]
struct Port {
    protocol: &'static str,
    on_nodes: bool,
    target: u16,
}

#[derive(Clone, Debug)]
struct Slice {
    is_v6: bool,
    is_headless: bool,
    /// Which ports of the Service it knows, a bit for each.
    ports: u8,
    pods: Vec<u8>,
}

/// What is said of a pod; all slices of a Service say the same.
#[derive(Clone, Debug)]
struct Pod {
    conditions: [Option<bool>; 3],
    has_node: bool,
    zones: Vec<&'static str>,
    nodes: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Slices {
    slices: Vec<Slice>,
    pods: Vec<Pod>,
}

fn service() -> impl Strategy<Value = (Service, Slices)> {
    let kind = prop_oneof![
        1 => Just(None),
        3 => Just(Some("ClusterIP")),
        4 => Just(Some("NodePort")),
        4 => Just(Some("LoadBalancer")),
        1 => Just(Some("ExternalName")),
    ];
    let families = select(vec![
        &["IPv4"] as &[_],
        &["IPv4"],
        &["IPv6"],
        &["IPv4", "IPv6"],
        &["IPv4", "IPv6"],
        &["IPv6", "IPv4"],
    ]);
    let policy = || option::of(select(vec!["Cluster", "Local", "Local"]));
    let port = (
        select(vec!["TCP", "TCP", "UDP", "SCTP"]),
        any::<bool>(),
        select(TARGETS.to_vec()),
    );
    let port = port.prop_map(|(protocol, on_nodes, target)| Port {
        protocol,
        on_nodes,
        target,
    });
    let mode = prop_oneof![3 => Just(None), 2 => Just(Some("VIP")), 1 => Just(Some("Proxy"))];
    let oddity = weighted(
        0.1,
        prop_oneof![
            Just(Oddity::Headless),
            Just(Oddity::OtherProxy),
            Just(Oddity::PublishNotReady)
        ],
    );
    let doors = (
        vec((any::<bool>(), mode), 0..3),
        vec(any::<bool>(), 0..3),
        source_ranges(),
    );
    (
        (kind, families, any::<bool>(), [policy(), policy()]),
        (any::<bool>(), vec(port, 1..4), doors, oddity),
        slices(),
    )
        .prop_map(|(first, (is_sticky, ports, doors, oddity), slices)| {
            let (kind, families, is_short, policies) = first;
            let (ingress, external, ranges) = doors;
            let service = Service {
                kind,
                families,
                is_short,
                policies,
                is_sticky,
                ports,
                ingress,
                external,
                ranges,
                oddity,
            };
            (service, slices)
        })
}

fn source_ranges() -> impl Strategy<Value = Vec<&'static str>> {
    let range = select(vec![
        "192.168.77.50/32",
        " 192.168.77.0/24 ",
        "192.168.77.8/30",
        "10.244.0.0/16",
        "198.51.100.0/24",
        "0.0.0.0/0",
        "fd00:192:168:77::/64",
        "fd00:10:244:1::/64",
        "2001:db8::/32",
        "::/0",
    ]);
    prop_oneof![3 => Just(Vec::new()), 1 => vec(range, 1..4)]
}

fn slices() -> impl Strategy<Value = Slices> {
    let slice = (
        any::<bool>(),
        prop::bool::weighted(0.05),
        prop_oneof![3 => Just(0xff_u8), 1 => any::<u8>()],
        vec(0..PODS, 0..5),
    );
    let slice = slice.prop_map(|(is_v6, is_headless, ports, pods)| Slice {
        is_v6,
        is_headless,
        ports,
        pods,
    });
    let ready = prop_oneof![
        4 => Just([Some(true), Some(true), Some(false)]),
        1 => Just([None, None, None]),
        2 => Just([Some(false), Some(true), Some(true)]),
        3 => any::<[Option<bool>; 3]>(),
    ];
    let hints = |names: Vec<&'static str>| {
        prop_oneof![
            2 => Just(Vec::new()),
            1 => vec(select(names), 1..3),
        ]
    };
    let pod = (
        ready,
        prop::bool::weighted(0.9),
        hints(vec!["zone-a", "zone-a", "zone-b"]),
        hints(vec!["node1", "node1", "node2"]),
    );
    let pod = pod.prop_map(|(conditions, has_node, mut zones, mut nodes)| {
        zones.dedup();
        nodes.dedup();
        Pod {
            conditions,
            has_node,
            zones,
            nodes,
        }
    });
    // Hints count only where all have some.
    let alike = (any::<[bool; 2]>(), vec(pod, usize::from(PODS)));
    let pods = alike.prop_map(|([with_zones, with_nodes], mut pods)| {
        for pod in &mut pods {
            if with_zones && pod.zones.is_empty() {
                pod.zones.push("zone-a");
            }
            if with_nodes && pod.nodes.is_empty() {
                pod.nodes.push("node2");
            }
        }
        pods
    });
    (vec(slice, 0..4), pods).prop_map(|(slices, pods)| Slices { slices, pods })
}
