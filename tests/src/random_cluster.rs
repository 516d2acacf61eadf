//! Random Services and slices, and a naive opinion of what follows from them: the oracle of the agent's tests.
//!
//! Names and addresses come from small pools, so that Services dispute addresses, endpoints come back, and pods follow
//! each other at one address.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::{BackendState, Protocol, ServiceId, V4, V6};
use lb_userspace::{
    desired::Frontend,
    maps::{MapContents, MapFamily},
    model::{
        Endpoint, EndpointPort, EndpointSlice, Family, Hints, NotServed, Place, Service,
        ServiceName, ServicePort, ServiceType, SliceName, Target, TrafficPolicy,
    },
};
use proptest::{collection::vec, prelude::*};

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
pub enum Step {
    /// A Service is new or has changed.
    Service(Service),
    /// A Service is deleted.
    NoService(ServiceName),
    /// A slice is new or has changed.
    Slice(EndpointSlice),
    /// A slice is deleted.
    NoSlice(SliceName),
}

/// A cluster as a test remembers it.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// By name.
    pub services: BTreeMap<ServiceName, Service>,
    /// By name.
    pub slices: BTreeMap<SliceName, EndpointSlice>,
}

impl Cluster {
    /// It happens.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Service(service) => {
                self.services.insert(service.name.clone(), service.clone());
            }
            Step::NoService(name) => {
                self.services.remove(name);
            }
            Step::Slice(slice) => {
                self.slices.insert(slice.name.clone(), slice.clone());
            }
            Step::NoSlice(name) => {
                self.slices.remove(name);
            }
        }
    }

    /// Who answers at which frontend, worked out as simply as can be.
    pub fn answers(&self) -> BTreeMap<Frontend, BTreeSet<SocketAddr>> {
        let mut answers = BTreeMap::new();
        for service in self
            .services
            .values()
            .filter(|service| service.not_served.is_none())
        {
            for port in &service.ports {
                for address in &service.cluster_ips {
                    let (port_number, protocol) = (port.port, port.protocol);
                    let frontend = Frontend {
                        address: *address,
                        port: port_number,
                        protocol,
                    };
                    let members = self.members(service, port, Family::of(*address));
                    // Services come by name: the first one that wants a frontend has it.
                    answers.entry(frontend).or_insert(members);
                }
            }
        }
        answers
    }

    fn members(
        &self,
        service: &Service,
        port: &ServicePort,
        family: Family,
    ) -> BTreeSet<SocketAddr> {
        // A pod in two slices counts by its better half, and on its own node if either says so.
        let mut known = BTreeMap::<SocketAddr, &Endpoint>::new();
        let rank = |it: &Endpoint| {
            let dying = it.serving && it.terminating;
            let is_local = it.node.as_deref() == Some(NODE);
            (it.ready, dying, is_local, it.target.clone())
        };
        for slice in self.slices.values() {
            if slice.service != service.name || slice.family != family {
                continue;
            }
            for target in &slice.ports {
                if target.name != port.name || target.protocol != port.protocol {
                    continue;
                }
                for endpoint in &slice.endpoints {
                    let address = SocketAddr::new(endpoint.address, target.port);
                    let better = known
                        .get(&address)
                        .is_none_or(|it| rank(it) < rank(endpoint));
                    if better {
                        known.insert(address, endpoint);
                    }
                }
            }
        }
        if service.internal_policy == TrafficPolicy::Local {
            known.retain(|_, it| it.node.as_deref() == Some(NODE));
        }
        let ready: BTreeMap<_, _> = known.iter().filter(|(_, it)| it.ready).collect();
        if ready.is_empty() {
            known.retain(|_, it| it.serving && it.terminating);
            return known.into_keys().collect();
        }
        if service.internal_policy == TrafficPolicy::Cluster {
            let for_node: BTreeSet<SocketAddr> = hinted(&ready, |it| &it.hints.nodes, NODE);
            if !for_node.is_empty() {
                return for_node;
            }
            let for_zone = hinted(&ready, |it| &it.hints.zones, ZONE);
            if !for_zone.is_empty() {
                return for_zone;
            }
        }
        ready.into_keys().copied().collect()
    }
}

/// Those meant for somebody, unless one of the ready is meant for nobody in particular.
fn hinted(
    ready: &BTreeMap<&SocketAddr, &&Endpoint>,
    hints: fn(&Endpoint) -> &BTreeSet<String>,
    whom: &str,
) -> BTreeSet<SocketAddr> {
    if ready.values().any(|it| hints(it).is_empty()) {
        return BTreeSet::new();
    }
    let meant = ready.iter().filter(|(_, it)| hints(it).contains(whom));
    meant.map(|(address, _)| **address).collect()
}

/// The node of the agent.
pub const NODE: &str = "node-a";
/// The zone of that node.
pub const ZONE: &str = "zone-a";

/// Where the agent is.
pub fn place() -> Place {
    Place {
        node: NODE.to_owned(),
        zone: Some(ZONE.to_owned()),
    }
}

/// Who answers at which frontend according to the maps.
///
/// # Errors
/// If a packet could not be translated: a frontend without a service, a slot that is missing or another service's, a
/// backend that takes no traffic or is another service's.
pub fn answers(contents: &MapContents) -> Result<BTreeMap<Frontend, BTreeSet<SocketAddr>>, String> {
    let mut answers = BTreeMap::new();
    family_answers::<V4>(contents, &mut answers)?;
    family_answers::<V6>(contents, &mut answers)?;
    Ok(answers)
}

/// Services that have a backend in two slots: allowed for a moment, while a list becomes shorter in its place.
pub fn with_double_slots(contents: &MapContents) -> Vec<ServiceId> {
    let services = contents.services.iter().filter(|(_, entry)| {
        let indices = entry.slots.start()..entry.slots.start() + entry.slots.length();
        let backends: BTreeSet<_> = indices
            .filter_map(|index| contents.slots.get(&index))
            .collect();
        backends.len() != entry.slots.length() as usize
    });
    services.map(|(id, _)| *id).collect()
}

fn family_answers<F: MapFamily>(
    contents: &MapContents,
    answers: &mut BTreeMap<Frontend, BTreeSet<SocketAddr>>,
) -> Result<(), String> {
    let family = F::of(contents);
    for (key, entry) in &family.frontends {
        let frontend = Frontend::from_key(key).ok_or("an unknown protocol")?;
        let id = entry.service_id;
        let service = contents
            .services
            .get(&id)
            .ok_or(format!("{frontend}: no service {id}"))?;
        let mut members = BTreeSet::new();
        for index in service.slots.start()..service.slots.start() + service.slots.length() {
            let at = format!("{frontend}, service {id}, slot {index}");
            let slot = contents
                .slots
                .get(&index)
                .ok_or(format!("{at}: nothing there"))?;
            if slot.service_id != id {
                return Err(format!("{at}: belongs to service {}", slot.service_id));
            }
            let backend_id = slot.backend_id;
            let backend = family
                .backends
                .get(&backend_id)
                .ok_or(format!("{at}: no backend"))?;
            if backend.state() != BackendState::Active || backend.service_id != id {
                return Err(format!("{at}: backend {backend_id} is {backend:?}"));
            }
            members.insert(SocketAddr::new(
                backend.address.into(),
                backend.port.number(),
            ));
        }
        answers.insert(frontend, members);
    }
    Ok(())
}

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
    let policy = prop_oneof![
        3 => Just(TrafficPolicy::Cluster),
        1 => Just(TrafficPolicy::Local),
    ];
    (0..NAMES, 0..6_u8, 0..4_u8, ports, not_served, policy).prop_map(
        |(name, address, families, ports, not_served, internal_policy)| {
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
            });
            Service {
                name: service_name(name),
                kind: ServiceType::ClusterIp,
                cluster_ips,
                ports: ports.collect(),
                not_served,
                publish_not_ready_addresses: false,
                internal_policy,
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
