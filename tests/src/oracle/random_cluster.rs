//! Random Services and slices, and a naive opinion of what follows from them: the oracle of the agent's tests.
//!
//! Names and addresses come from small pools, so that Services dispute addresses, endpoints come back, and pods follow
//! each other at one address.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use lb_common::{
    BackendState, ClientScope, FrontendEntry, FrontendFlags, FrontendKey, ServiceId, V4, V6,
};
use lb_userspace::{
    desired::Frontend,
    maps::{MapContents, MapFamily},
    model::{
        Endpoint, EndpointSlice, Family, Place, Service, ServiceName, ServicePort, SliceName,
        TrafficPolicy,
    },
};

mod steps;

pub use steps::{batches, step};

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

    /// The Services that are served: of several that want a frontend the first one here has it.
    fn served(&self) -> Vec<&Service> {
        let services = self.services.values();
        let mut served: Vec<_> = services.filter(|it| it.not_served.is_none()).collect();
        served.sort_by_key(|it| (it.created, &it.name));
        served
    }

    /// The frontends whose clients are masqueraded: those for the outside, if the backend may be anywhere.
    pub fn masquerading(&self) -> BTreeSet<Frontend> {
        let mut owners = BTreeMap::new();
        for service in self.served() {
            for port in &service.ports {
                for (frontend, policy) in dialled(service, port) {
                    let is_inside = service.cluster_ips.contains(&frontend.address);
                    let masquerades = !is_inside
                        && policy == TrafficPolicy::Cluster
                        && frontend.scope == ClientScope::Everybody;
                    owners.entry(frontend).or_insert(masquerades);
                }
            }
        }
        let masquerading = owners.into_iter().filter(|(_, masquerades)| *masquerades);
        masquerading.map(|(frontend, _)| frontend).collect()
    }

    /// Who answers at which frontend, worked out as simply as can be.
    pub fn answers(&self) -> BTreeMap<Frontend, BTreeSet<SocketAddr>> {
        let mut answers = BTreeMap::new();
        for service in self.served() {
            for port in &service.ports {
                for (frontend, policy) in dialled(service, port) {
                    let members = self.members(service, port, frontend.family(), policy);
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
        policy: TrafficPolicy,
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
        if policy == TrafficPolicy::Local {
            known.retain(|_, it| it.node.as_deref() == Some(NODE));
        }
        let ready: BTreeMap<_, _> = known.iter().filter(|(_, it)| it.ready).collect();
        if ready.is_empty() {
            known.retain(|_, it| it.serving && it.terminating);
            return known.into_keys().collect();
        }
        if policy == TrafficPolicy::Cluster {
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

/// Where a port is dialled: inside at the cluster addresses, from outside at external addresses and the node's own.
fn dialled(service: &Service, port: &ServicePort) -> Vec<(Frontend, TrafficPolicy)> {
    let at = |address: IpAddr, number: u16, scope| Frontend {
        address,
        port: number,
        protocol: port.protocol,
        scope,
    };
    let mut dialled = Vec::new();
    for address in &service.cluster_ips {
        let frontend = at(*address, port.port, ClientScope::Everybody);
        dialled.push((frontend, service.internal_policy));
    }
    let addresses = service.balancer_ips.iter().chain(&service.external_ips);
    let mut external: Vec<_> = addresses.map(|address| (*address, port.port)).collect();
    external.extend(port.node_port.map(|number| (NODE_ADDRESS, number)));
    external.retain(|(address, _)| service.cluster_ip(Family::of(*address)).is_some());
    for (address, number) in external {
        let frontend = at(address, number, ClientScope::Everybody);
        dialled.push((frontend, service.external_policy));
        // Whoever is inside the cluster is not bound by the policy for the outside.
        if service.external_policy == TrafficPolicy::Local {
            let frontend = at(address, number, ClientScope::Inside);
            dialled.push((frontend, TrafficPolicy::Cluster));
        }
    }
    dialled
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
/// The address of that node.
pub const NODE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The zone of that node.
pub const ZONE: &str = "zone-a";

/// Where the agent is.
pub fn place() -> Place {
    Place {
        node: NODE.to_owned(),
        zone: Some(ZONE.to_owned()),
        addresses: vec![NODE_ADDRESS],
        ..Place::default()
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

/// The frontends whose clients are masqueraded according to the maps.
pub fn masquerading(contents: &MapContents) -> BTreeSet<Frontend> {
    let flags = |entry: &FrontendEntry| entry.flags.has(FrontendFlags::MASQUERADE);
    let v4 = contents
        .v4
        .frontends
        .iter()
        .filter(|(_, entry)| flags(entry));
    let v6 = contents
        .v6
        .frontends
        .iter()
        .filter(|(_, entry)| flags(entry));
    let v4 = v4.filter_map(|(key, _)| Frontend::from_key(key));
    v4.chain(v6.filter_map(|(key, _)| Frontend::from_key(key)))
        .collect()
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
    let of_services = |(_, entry): &(&FrontendKey<F>, &FrontendEntry)| entry.service_id != 0;
    for (key, entry) in family.frontends.iter().filter(of_services) {
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
