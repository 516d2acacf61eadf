//! A small cluster, told to the datapath's tables and to the reference alike.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "what cannot happen here is a mistake in the test, and fails it"
)]
mod admission;
mod frontends;
mod kinds;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    Algorithm, BackendEntry, BackendState, DeviceEntry, FrontendEntry, FrontendFlags, Port, Prefix,
    ServiceEntry, V4, V6,
};

pub use self::kinds::{Kind, SERVICES};
use crate::{
    memory_clock::MemoryClock,
    oracle::memory_tables::{MemoryFamily, MemoryTables},
    oracle::reference::{Backend, Device, Service, World},
};

/// At which hook a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Entering the node.
    Ingress,
    /// Leaving it, or going to one of its pods.
    Egress,
}

/// How many pods there are; a few more than stand behind services.
pub const PODS: usize = 4;
/// How many clients there are; the last two are the first two pods.
pub const CLIENTS: usize = 5;
/// How many backend ids there are, counted from 0 (the ids themselves from 1).
pub const BACKENDS: usize = 46;
/// An uplink, with masquerade addresses of both families.
pub const UPLINK: u32 = 1;
/// A port of [`BRIDGE`], behind which the second pod is as well.
pub const BRIDGE_PORT: u32 = 2;
/// A device without addresses.
pub const BARE: u32 = 3;
/// A bridge.
pub const BRIDGE: u32 = 9;

fn address(is_v6: bool, network: u8, host: usize) -> IpAddr {
    let host = u8::try_from(host).expect("a small number");
    if is_v6 {
        Ipv6Addr::new(0xfd00, 0, 0, u16::from(network), 0, 0, 0, u16::from(host)).into()
    } else {
        Ipv4Addr::new(10, network, 0, host).into()
    }
}
/// Where a service is dialled.
pub fn frontend(service: usize) -> SocketAddr {
    SocketAddr::new(address(SERVICES[service].is_v6, 96, service + 1), 80)
}
/// The address of a pod.
pub fn pod(is_v6: bool, index: usize) -> IpAddr {
    address(is_v6, 244, index + 1)
}
/// The address of a client.
pub fn client(is_v6: bool, index: usize) -> IpAddr {
    match index.checked_sub(CLIENTS - 2) {
        Some(of_pod) => pod(is_v6, of_pod),
        None => address(is_v6, 7, index + 1),
    }
}
/// The node's address.
pub fn node(is_v6: bool) -> IpAddr {
    address(is_v6, 1, 1)
}
/// The port that pods listen on.
pub const TARGET_PORT: u16 = 8080;

/// The cluster, as both sides know it.
pub struct Cluster {
    /// The datapath's tables.
    pub tables: MemoryTables,
    /// The reference.
    pub world: World,
    next_slot: u32,
}

impl Cluster {
    /// Every service with all its pods.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, &SERVICES)
    }

    /// The same, and every service chooses by hash: nothing is left to chance.
    pub fn choosing_by_hash() -> Self {
        let services = SERVICES.map(|kind| Kind {
            by_hash: true,
            ..kind
        });
        Self::with(0, &services)
    }

    fn with(seed: u64, services: &[Kind]) -> Self {
        let clock = MemoryClock::new(seed);
        let now = clock.now;
        let mut cluster = Self {
            tables: MemoryTables {
                clock,
                ..MemoryTables::default()
            },
            world: World {
                now,
                ..World::default()
            },
            next_slot: 1,
        };
        cluster.set_room(1000);
        cluster.tables.config.udp_flows_per_client = 3;
        cluster.world.udp_flows_per_client = 3;
        cluster.add_devices();
        let mut id = 0;
        for (index, kind) in services.iter().enumerate() {
            let service = u32::try_from(index + 1).expect("few");
            cluster.add_service(service, frontend(index), kind);
            for pod_index in kind.first_pod..kind.first_pod + kind.pods {
                id += 1;
                let address = SocketAddr::new(pod(kind.is_v6, pod_index), TARGET_PORT);
                let backend = Backend {
                    address,
                    state: BackendState::Active,
                    generation: 1,
                    service,
                };
                cluster.set_backend(id, backend);
                cluster.track_direct(address, kind.protocol);
                cluster
                    .world
                    .services
                    .get_mut(&service)
                    .expect("added")
                    .candidates
                    .push(id);
            }
            cluster.switch_slots(service);
        }
        assert_eq!(usize::try_from(id).expect("few"), BACKENDS);
        cluster
    }

    fn add_devices(&mut self) {
        let (IpAddr::V4(masquerade_v4), IpAddr::V6(masquerade_v6)) = (node(false), node(true))
        else {
            unreachable!("one of each family")
        };
        let with_addresses = Device {
            masquerade_v4,
            masquerade_v6,
            bridge: 0,
        };
        let port = Device {
            bridge: BRIDGE,
            ..with_addresses
        };
        for (interface, device) in [
            (UPLINK, with_addresses),
            (BRIDGE_PORT, port),
            (BARE, Device::default()),
        ] {
            self.world.devices.insert(interface, device);
            let entry = DeviceEntry {
                masquerade_v4: device.masquerade_v4.into(),
                masquerade_v6: device.masquerade_v6.into(),
                bridge: device.bridge,
                ..DeviceEntry::default()
            };
            self.tables.devices.insert(interface, entry);
        }
        let v4 = |network: u8| Prefix {
            network: Ipv4Addr::new(10, network, 0, 0).into(),
            mask: Ipv4Addr::new(255, 255, 0, 0).into(),
        };
        let v6 = |network: u16| Prefix {
            network: Ipv6Addr::new(0xfd00, 0, 0, network, 0, 0, 0, 0).into(),
            mask: Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0).into(),
        };
        let networks = &mut self.tables.networks;
        (networks.v4.pods, networks.v6.pods) = (v4(244), v6(244));
        (networks.v4.around_services, networks.v6.around_services) = (v4(96), v6(96));
        // 0xfd and the first byte of IPv4 addresses differ.
        self.world.pods = vec![vec![10, 244], vec![0xfd, 0, 0, 0, 0, 0, 0, 244]];
        // IPv6's unused addresses are nobody's affair.
        networks.v4.service_prefixes[0] = v4(96);
        self.world.admission.for_services = vec![vec![10, 96]];
        for is_v6 in [false, true] {
            self.world
                .neighbours
                .insert((BRIDGE, pod(is_v6, 1)), [2, 9, 9, 9, 9, 9]);
        }
    }

    fn add_service(&mut self, id: u32, frontend: SocketAddr, kind: &Kind) {
        let service = Service {
            by_hash: kind.by_hash,
            masqueraded: kind.masqueraded,
            affinity_seconds: kind.affinity_seconds,
            ..Service::default()
        };
        self.world.services.insert(id, service);
        let algorithm = if kind.by_hash {
            Algorithm::Hash
        } else {
            Algorithm::Random
        };
        let entry = ServiceEntry {
            algorithm: algorithm as u8,
            affinity_seconds: kind.affinity_seconds,
            ..ServiceEntry::default()
        };
        self.tables.services.insert(id, entry);
        self.write_frontend(frontend, id, kind);
        self.write_other_ports(id, frontend.ip());
    }

    /// Direct connections to a backend are tracked: over IPv4 all, over IPv6 those of pods.
    fn track_direct(&mut self, address: SocketAddr, protocol: u8) {
        self.world
            .direct
            .insert((address, protocol), address.is_ipv4());
        let flags = if address.is_ipv4() {
            FrontendFlags::DIRECT.with(FrontendFlags::DIRECT_FROM_OUTSIDE)
        } else {
            FrontendFlags::DIRECT
        };
        let entry = FrontendEntry {
            service_id: 0,
            flags,
        };
        self.set_frontend(address, protocol, Some(entry));
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        match backend.address.ip() {
            IpAddr::V4(ip) => write_backend::<V4>(&mut self.tables, id, ip.into(), &backend),
            IpAddr::V6(ip) => write_backend::<V6>(&mut self.tables, id, ip.into(), &backend),
        }
        self.world.backends.insert(id, backend);
    }

    /// Writes a service's candidates to a fresh region and switches to it.
    fn switch_slots(&mut self, service: u32) {
        let candidates = &self.world.services[&service].candidates;
        self.tables.set_slots(service, self.next_slot, candidates);
        self.next_slot += u32::try_from(candidates.len()).expect("few");
    }

    /// A backend leaves: first no new flows, then its state.
    pub fn leave(&mut self, index: usize, state: BackendState) {
        let id = u32::try_from(index + 1).expect("few");
        let mut backend = self.world.backends[&id].clone();
        let service = backend.service;
        self.world
            .services
            .get_mut(&service)
            .expect("its service")
            .candidates
            .retain(|other| *other != id);
        self.switch_slots(service);
        backend.state = state;
        self.set_backend(id, backend);
    }

    /// A backend is a member again: first its state, then new flows.
    pub fn join(&mut self, index: usize) {
        let id = u32::try_from(index + 1).expect("few");
        let mut backend = self.world.backends[&id].clone();
        let service = backend.service;
        backend.state = BackendState::Active;
        self.set_backend(id, backend);
        let candidates = &mut self
            .world
            .services
            .get_mut(&service)
            .expect("its service")
            .candidates;
        if !candidates.contains(&id) {
            candidates.push(id);
        }
        self.switch_slots(service);
    }

    /// A backend's id is given to the last pod, for the same service; unless the service has that pod already.
    pub fn replace(&mut self, index: usize) {
        let id = u32::try_from(index + 1).expect("few");
        let mut backend = self.world.backends[&id].clone();
        backend
            .address
            .set_ip(pod(backend.address.is_ipv6(), PODS - 1));
        let mut others = self.world.backends.values();
        if others.any(|other| other.service == backend.service && other.address == backend.address)
        {
            return;
        }
        self.leave(index, BackendState::Draining);
        backend.generation += 1;
        self.set_backend(id, backend);
        self.join(index);
    }

    /// Seconds pass.
    pub fn advance(&mut self, seconds: u32) {
        self.tables.clock.advance(seconds);
        self.world.now = self.tables.clock.now;
    }

    /// FLOWS has room for so many entries, each family.
    pub fn set_room(&mut self, entries: usize) {
        self.tables.v4.proven.capacity = entries;
        self.tables.v6.proven.capacity = entries;
        self.world.proven_capacity = entries;
    }
}

fn write_backend<F: MemoryFamily>(
    tables: &mut MemoryTables,
    id: u32,
    address: F::Address,
    backend: &Backend,
) {
    let entry = BackendEntry {
        address,
        port: Port::new(backend.address.port()),
        state: backend.state as u8,
        generation: backend.generation,
        service_id: backend.service,
        ..F::nobody()
    };
    F::own_mut(tables).backends.insert(id, entry);
}
