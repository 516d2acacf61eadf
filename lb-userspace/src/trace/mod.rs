//! What would happen to a packet: the datapath itself, run over tables that hold what the agent has written.
//!
//! ```text
//! manifests -> agent -> maps in memory ─┐
//! pinned maps ──────────────────────────┴▶ ingress, or the socket hooks ─▶ egress ─▶ answer
//! ```
//!
//! Nothing here knows the rules of Services: who gets a packet is decided by the library that the kernel programs are
//! made of, and what it may choose from by the agent's own code. A question writes nothing but flows of its own, which
//! end with it.
mod account;
mod answer;
mod frame;
mod live;
mod names;
mod packet_path;
mod question;
mod sources;
mod tables;

use std::net::SocketAddr;

use lb_common::{BackendState, FrontendEntry, ServiceId, V4, V6};

pub use answer::{Answer, Outcome, Scope};
pub use names::Names;
pub use question::{Origin, Question, address, protocol};
pub use sources::{NodeContext, Read};

use account::Account;
use packet_path::{Decision, PacketPath};
use tables::{Lookup, Record};

use lb_ebpf::memory::tables::{MemoryFamily, MemoryTables};

use crate::maps::{MapContents, MapFamily};

/// The interface that a packet enters by, where none is named.
const ENTERS: u32 = 1;
/// The interface that a packet leaves by.
const LEAVES: u32 = 2;

/// Answers questions about what stands in some tables.
#[derive(Debug)]
pub struct Tracer {
    maps: MapContents,
    names: Names,
    node: NodeContext,
}

impl Tracer {
    /// Over these tables.
    pub fn new(maps: MapContents, names: Names, node: NodeContext) -> Self {
        Self { maps, names, node }
    }

    /// The tables.
    pub fn maps(&self) -> &MapContents {
        &self.maps
    }

    /// What would happen to the packet.
    pub fn ask(&self, question: &Question) -> Answer {
        match question.destination {
            SocketAddr::V4(_) => self.answer::<V4>(question),
            SocketAddr::V6(_) => self.answer::<V6>(question),
        }
    }

    fn answer<F: TraceFamily>(&self, question: &Question) -> Answer {
        let (origin, why) = self.node.origin(question);
        let mut tables = MemoryTables::<Record> {
            clock: packet_path::clock::<F>(question),
            ..MemoryTables::from(&self.maps)
        };
        let path = self.path::<F>(question, origin, &mut tables);
        let lookups = tables.instrument.lookups();
        // What is not translated is for no Service, whatever was found on the way.
        let is_ours = !matches!(path.decision, Decision::Pass(_));
        let frontend = frontend_of(&lookups).filter(|_| is_ours);
        let service_id = service_of(&lookups).filter(|_| is_ours);
        // Who is kept out may not reach those that others may.
        let of_service = service_id.filter(|_| !path.decision.is_by_rule());
        let candidates = of_service.map_or_else(Vec::new, |id| candidates::<F>(&self.maps, id));
        let account = Account {
            tracer: self,
            question,
            origin,
            why,
            lookups: &lookups,
            path: &path,
        };
        let steps = account.steps::<F>();
        let backend = backend_of(&path, &lookups);
        let (verdict, reason) = verdict(path.decision);
        Answer {
            verdict,
            reason: reason.to_owned(),
            service: service_id.and_then(|id| self.names.service(id)),
            frontend: frontend.map(|(at, _)| at.to_string()),
            scope: frontend.and_then(|(at, entry)| self.names.scope(at, entry)),
            candidates,
            backend: backend.map(|at| at.to_string()),
            masquerade: path.masquerade,
            source_after: path.source.map(|at| at.to_string()),
            destination_after: path.destination.map(|at| at.to_string()),
            steps,
        }
    }
}

/// A family whose tables are in memory and filled by an agent.
trait TraceFamily: MapFamily + MemoryFamily {}
impl<F: MapFamily + MemoryFamily> TraceFamily for F {}

/// The frontend that the packet is for.
fn frontend_of(lookups: &[Lookup]) -> Option<(SocketAddr, FrontendEntry)> {
    lookups.iter().rev().find_map(|lookup| match lookup {
        Lookup::Frontend(at, entry, _) => Some((*at, *entry)),
        Lookup::Service(..) | Lookup::Backend(..) => None,
    })
}

/// The service whose backends were chosen from.
fn service_of(lookups: &[Lookup]) -> Option<ServiceId> {
    let mut found = lookups.iter().rev().filter_map(|lookup| match lookup {
        Lookup::Service(id, _) => Some(*id),
        Lookup::Frontend(..) | Lookup::Backend(..) => None,
    });
    let of_frontend = || frontend_of(lookups).map(|(_, entry)| entry.service_id);
    found.next().or_else(of_frontend)
}

/// The backend that the packet got.
fn backend_of(path: &PacketPath, lookups: &[Lookup]) -> Option<SocketAddr> {
    if path.decision != Decision::Translated {
        return None;
    }
    lookups.iter().rev().find_map(|lookup| match lookup {
        Lookup::Backend(_, at, _) => Some(*at),
        Lookup::Frontend(..) | Lookup::Service(..) => None,
    })
}

/// Who stands in a service's slots and takes new flows.
fn candidates<F: MapFamily>(maps: &MapContents, id: ServiceId) -> Vec<String> {
    let Some(service) = maps.services.get(&id) else {
        return Vec::new();
    };
    let region = service.slots;
    let slots = (region.start()..region.start().saturating_add(region.length()))
        .filter_map(|index| maps.slots.get(&index))
        .filter(|slot| slot.service_id == id);
    let backends = slots.filter_map(|slot| F::of(maps).backends.get(&slot.backend_id));
    let mut candidates: Vec<String> = backends
        .filter(|entry| entry.state() == BackendState::Active && entry.service_id == id)
        .map(|entry| crate::maps::dump::socket_address(entry).to_string())
        .collect();
    candidates.sort();
    candidates.dedup();
    candidates
}

/// The two words for a decision.
fn verdict(decision: Decision) -> (Outcome, &'static str) {
    match decision {
        Decision::Pass(reason) => (Outcome::Pass, answer::pass_reason(reason)),
        Decision::Translated => (Outcome::Dnat, "candidate_chosen"),
        Decision::Drop(reason) if reason.refusal().is_some() => {
            (Outcome::Reject, answer::drop_reason(reason))
        }
        Decision::Drop(reason) => (Outcome::Drop, answer::drop_reason(reason)),
        Decision::Failed(reason) if reason.is_by_rule() => {
            (Outcome::Drop, answer::drop_reason(reason))
        }
        Decision::Failed(reason) => (Outcome::Reject, answer::drop_reason(reason)),
    }
}
