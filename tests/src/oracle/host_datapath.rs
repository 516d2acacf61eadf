//! The datapath as a program of the host: the library over memory.
use std::net::SocketAddr;

use lb_common::{
    Algorithm, BackendEntry, BackendId, BackendState, FlowEntry, FlowSide, FrontendEntry,
    FrontendFlags, FrontendKey, Port, ServiceId, Tuple, V4, Verdict,
};
use lb_ebpf::{
    bytes::{headers::Wire, parse::Link, parsed::Parsed},
    context::{self, environment::FlowTable, scratch::Scratch},
    path::pipeline::{self, Observer},
};

use crate::{
    memory_packet::MemoryPacket,
    oracle::memory_tables::{MemoryFamily, MemoryTables},
    packets::generate::Hook,
};

/// Watches nothing.
struct Nobody;
impl Observer for Nobody {
    fn observe<F: Wire>(&mut self, _parsed: &Parsed<F>, _verdict: Verdict) {}
}

/// Runs the datapath on a packet. What one packet leaves in `scratch` the next one finds, as in the kernel.
pub fn run(
    hook: Hook,
    packet: &mut MemoryPacket,
    link: Link,
    scratch: &mut Scratch,
    tables: &mut MemoryTables,
) -> Verdict {
    let side = match hook {
        Hook::Ingress => FlowSide::Destination,
        Hook::Egress => FlowSide::Source,
    };
    let hook = context::Hook { side, link };
    pipeline::run(packet, hook, scratch.memory(), tables, &mut Nobody)
}

/// A node with a few services, for tests that tell it everything themselves.
pub struct HostDatapath {
    /// Its tables.
    pub tables: MemoryTables,
    scratch: Scratch,
    next_slot: u32,
}

impl Default for HostDatapath {
    fn default() -> Self {
        Self {
            tables: MemoryTables::default(),
            scratch: Scratch::default(),
            next_slot: 1,
        }
    }
}

impl HostDatapath {
    /// A frontend of a service that chooses by hash among the backends named with [`HostDatapath::backend`].
    pub fn frontend(&mut self, service_id: ServiceId, protocol: u8, at: SocketAddr) {
        let entry = FrontendEntry {
            service_id,
            flags: FrontendFlags::NONE,
        };
        let port = Port::new(at.port());
        match at {
            SocketAddr::V4(at) => {
                let key = FrontendKey::new((*at.ip()).into(), port, protocol);
                self.tables.v4.frontends.insert(key, entry);
            }
            SocketAddr::V6(at) => {
                let key = FrontendKey::new((*at.ip()).into(), port, protocol);
                self.tables.v6.frontends.insert(key, entry);
            }
        }
        self.choose_by(service_id, Algorithm::Hash);
    }
    /// How a service chooses.
    pub fn choose_by(&mut self, service_id: ServiceId, algorithm: Algorithm) {
        let service = self.tables.services.entry(service_id).or_default();
        service.algorithm = algorithm as u8;
    }
    /// How long clients of a service stay with a backend.
    pub fn stay(&mut self, service_id: ServiceId, seconds: u32) {
        let service = self.tables.services.entry(service_id).or_default();
        service.affinity_seconds = seconds;
    }
    /// A backend, in a state.
    pub fn backend(
        &mut self,
        id: BackendId,
        service_id: ServiceId,
        at: SocketAddr,
        state: BackendState,
    ) {
        fn entry<F: MemoryFamily>(
            address: F::Address,
            port: u16,
            service_id: ServiceId,
            state: BackendState,
        ) -> BackendEntry<F> {
            BackendEntry {
                address,
                port: Port::new(port),
                state: state as u8,
                generation: 1,
                service_id,
                ..F::nobody()
            }
        }
        match at {
            SocketAddr::V4(at) => {
                let entry = entry((*at.ip()).into(), at.port(), service_id, state);
                self.tables.v4.backends.insert(id, entry);
            }
            SocketAddr::V6(at) => {
                let entry = entry((*at.ip()).into(), at.port(), service_id, state);
                self.tables.v6.backends.insert(id, entry);
            }
        }
    }
    /// Who may get a service's new flows.
    pub fn candidates(&mut self, service_id: ServiceId, backends: &[BackendId]) {
        self.tables.set_slots(service_id, self.next_slot, backends);
        self.next_slot += u32::try_from(backends.len()).unwrap_or_default();
    }

    /// A frame enters by interface 1.
    pub fn enter(&mut self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut packet = MemoryPacket::new(bytes.to_vec());
        let verdict = self.pass(Hook::Ingress, &mut packet, Link::Ethernet);
        (verdict, packet.bytes)
    }
    /// A frame leaves by interface 1.
    pub fn leave(&mut self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut packet = MemoryPacket::new(bytes.to_vec());
        let verdict = self.pass(Hook::Egress, &mut packet, Link::Ethernet);
        (verdict, packet.bytes)
    }
    /// A packet passes a hook.
    pub fn pass(&mut self, hook: Hook, packet: &mut MemoryPacket, link: Link) -> Verdict {
        let Self {
            tables, scratch, ..
        } = self;
        run(hook, packet, link, scratch, tables)
    }

    /// The entry of an IPv4 tuple, and its table; `None` if packets that enter and packets that leave both have one.
    pub fn remembered(
        &self,
        protocol: u8,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<(FlowTable, FlowEntry<V4>)> {
        let entering = tuple(protocol, source, destination)?;
        [FlowTable::Proven, FlowTable::Opening]
            .into_iter()
            .find_map(|table| {
                let flows = self.tables.v4.flows(table);
                let entry = flows.get(&entering);
                Some((table, entry.xor(flows.get(&entering.leaving()))?))
            })
    }
}

/// An IPv4 tuple; none for IPv6 addresses.
pub fn tuple(protocol: u8, source: SocketAddr, destination: SocketAddr) -> Option<Tuple<V4>> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
        return None;
    };
    Some(Tuple::new(
        (*source.ip()).into(),
        Port::new(source.port()),
        (*destination.ip()).into(),
        Port::new(destination.port()),
        protocol,
    ))
}
