//! Which backend a new flow gets, where the datapath may choose.
use std::net::{IpAddr, SocketAddr};

use lb_common::{Port, Tuple, V4, V6};

use super::{Key, Passing, Service, World, memory::is_masquerade_port};

impl World {
    /// Another source port for a new flow, where a living flow of another frontend has the replies to its own: whichever
    /// free one the datapath took.
    pub(super) fn source_port(&self, passing: &Passing<'_>, backend: SocketAddr) -> Option<u16> {
        if self.may_have(passing, backend, None) {
            return None;
        }
        let source = passing.observed.source(passing.link);
        let port = source.map_or(0, |source| source.port());
        assert!(is_masquerade_port(port), "source port {port}");
        let is_free = self.may_have(passing, backend, Some(port));
        assert!(is_free, "source port {port} is taken");
        Some(port)
    }

    /// The one backend that hashing gives, or whichever the datapath took.
    pub(super) fn chosen(&self, passing: &Passing<'_>, service: &Service) -> u32 {
        let candidates = &service.candidates;
        if service.by_hash {
            let place = lb_common::hash::place(
                hash(&passing.key),
                u32::try_from(candidates.len()).expect("a small service"),
            );
            return candidates[usize::try_from(place).expect("small")];
        }
        let went_to = passing.observed.destination(passing.link);
        let mut taken = candidates.iter().copied();
        let taken = taken.find(|id| Some(self.backends[id].address) == went_to);
        taken.unwrap_or(candidates[0])
    }
}

/// The tuple hash that both sides of the product share; its quality is tested beside it.
fn hash(key: &Key) -> u32 {
    let source_port = Port::new(key.source.port());
    let destination_port = Port::new(key.destination.port());
    let (source, destination) = (key.source.ip(), key.destination.ip());
    let protocol = key.protocol;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.into(), destination.into());
            let tuple =
                Tuple::<V4>::new(source, source_port, destination, destination_port, protocol);
            lb_common::hash::tuple_hash(&tuple)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (source, destination) = (source.into(), destination.into());
            let tuple =
                Tuple::<V6>::new(source, source_port, destination, destination_port, protocol);
            lb_common::hash::tuple_hash(&tuple)
        }
        mixed => unreachable!("a packet of two families: {mixed:?}"),
    }
}
