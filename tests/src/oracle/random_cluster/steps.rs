//! Random steps.
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::Protocol;
use lb_userspace::model::{
    Created, Endpoint, EndpointPort, EndpointSlice, Family, Hints, NotServed, Service, ServiceName,
    ServicePort, ServiceType, SliceName, Target, TrafficPolicy,
};
use proptest::{collection::vec, prelude::*};

use super::{NODE, Step, ZONE};

/// A step, of any kind.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => service().prop_map(Step::Service),
        1 => (0..NAMES).prop_map(|number| Step::NoService(service_name(number))),
        6 => slice().prop_map(Step::Slice),
        1 => (0..NAMES, 0..SLICES).prop_map(|(of, number)| Step::NoSlice(slice_name(of, number))),
    ]
}

/// Some steps that are seen together.
pub fn batches() -> impl Strategy<Value = Vec<Vec<Step>>> {
    vec(vec(step(), 1..6), 1..12)
}

const NAMES: u8 = 4;
const SLICES: u8 = 2;

fn service_name(number: u8) -> ServiceName {
    ServiceName::new("default", format!("service-{number}"))
}

fn slice_name(of: u8, number: u8) -> SliceName {
    SliceName::new("default", format!("slice-{of}-{number}"))
}

fn service() -> impl Strategy<Value = Service> {
    let ports = proptest::sample::subsequence(PORTS.to_vec(), 0..=PORTS.len());
    let not_served = prop_oneof![9 => Just(None), 1 => Just(Some(NotServed::Headless))];
    let policy = || {
        prop_oneof![
            3 => Just(TrafficPolicy::Cluster),
            1 => Just(TrafficPolicy::Local),
        ]
    };
    // Which addresses there are, and which policies, inside and outside.
    let external = (any::<[bool; 2]>(), policy());
    // Two of three are made in the same second, or do not say when they were made.
    let created = prop_oneof![
        Just(Created::Unknown),
        Just(Created::At(1)),
        Just(Created::At(2))
    ];
    (
        0..NAMES,
        0..6_u8,
        0..4_u8,
        ports,
        not_served,
        policy(),
        (external, created),
    )
        .prop_map(
            |(name, address, families, ports, not_served, internal_policy, external)| {
                let (([has_node_ports, has_balancer], external_policy), created) = external;
                let v4 = IpAddr::V4(Ipv4Addr::new(10, 96, 0, address));
                let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 96, address.into()));
                let cluster_ips = match families {
                    0 => vec![v4],
                    1 => vec![v6],
                    _ => vec![v4, v6],
                };
                let ports = ports.into_iter().map(|(name, protocol, port)| ServicePort {
                    name: name.to_owned(),
                    protocol,
                    port,
                    node_port: has_node_ports.then_some(30_000 + port),
                });
                let ranges = ["198.51.100.0/24", "10.244.0.0/16"].map(|it| it.parse().ok());
                let ranges = ranges.into_iter().take(address.into()).flatten().collect();
                let balancer = IpAddr::V4(Ipv4Addr::new(203, 0, 113, address));
                Service {
                    uid: String::new(),
                    created,
                    kind: ServiceType::ClusterIp,
                    name: service_name(name),
                    cluster_ips,
                    ports: ports.collect(),
                    not_served,
                    internal_policy,
                    source_ranges: (address % 2 == 1).then_some(ranges),
                    balancer_ips: has_balancer.then_some(balancer).into_iter().collect(),
                    external_ips: Vec::new(),
                    external_policy,
                    affinity_seconds: if families == 3 { 600 } else { 0 },
                    health_check_port: None,
                    warnings: Vec::new(),
                }
            },
        )
}

/// The ports that Services have: name, protocol, number.
const PORTS: [(&str, Protocol, u16); 3] = [
    ("http", Protocol::Tcp, 80),
    ("dns", Protocol::Udp, 53),
    ("dns-tcp", Protocol::Tcp, 53),
];

fn slice() -> impl Strategy<Value = EndpointSlice> {
    (
        0..NAMES,
        0..SLICES,
        any::<bool>(),
        vec(endpoint(), 0..5),
        0..3_u16,
    )
        .prop_map(|(of, number, is_v6, endpoints, shift)| {
            let family = if is_v6 { Family::V6 } else { Family::V4 };
            let ports = PORTS.iter().map(|(name, protocol, port)| EndpointPort {
                name: (*name).to_owned(),
                protocol: *protocol,
                port: 8000 + port + shift / 2,
            });
            let endpoints = endpoints.into_iter().map(|(host, endpoint)| Endpoint {
                address: match family {
                    Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 244, 0, host)),
                    Family::V6 => {
                        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 244, host.into()))
                    }
                },
                ..endpoint
            });
            EndpointSlice {
                name: slice_name(of, number),
                service: service_name(of),
                family,
                ports: ports.collect(),
                endpoints: endpoints.collect(),
                warnings: Vec::new(),
            }
        })
}

fn endpoint() -> impl Strategy<Value = (u8, Endpoint)> {
    let conditions = prop_oneof![
        6 => Just((true, true, false)),
        1 => Just((false, false, false)),
        2 => Just((false, true, true)),
        1 => Just((false, false, true)),
    ];
    let target = prop_oneof![
        1 => Just(None),
        3 => (0..2_u8).prop_map(Some),
    ];
    // Hints that all have are rare among random ones; so most have the same.
    let hints = prop_oneof![
        2 => Just(Hints::default()),
        3 => any::<[bool; 4]>().prop_map(|[node_a, node_b, zone_a, zone_b]| Hints {
            nodes: names(&[(node_a, NODE), (node_b, "node-b")]),
            zones: names(&[(zone_a, ZONE), (zone_b, "zone-b")]),
        }),
    ];
    let node = prop_oneof![Just(None), Just(Some(NODE)), Just(Some("node-b"))];
    let parts = (1..7_u8, conditions, target, hints, node);
    parts.prop_map(
        |(host, (ready, serving, terminating), target, hints, node)| {
            let target = target.map(|number| Target {
                name: format!("pod-{host}-{number}"),
                uid: format!("uid-{host}-{number}"),
            });
            let endpoint = Endpoint {
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                ready,
                serving,
                terminating,
                node: node.map(str::to_owned),
                hints,
                target,
            };
            (host, endpoint)
        },
    )
}

fn names(names: &[(bool, &str)]) -> BTreeSet<String> {
    let there = names.iter().filter(|(is_there, _)| *is_there);
    there.map(|(_, name)| (*name).to_owned()).collect()
}
