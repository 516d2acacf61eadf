//! What the agent may ask of the maps. The kernel answers (`bpf`), or plain collections do (`fake`, `faulty`).
//!
//! The operations are small on purpose: what makes a sequence of them safe for packets that pass meanwhile is decided
//! in [`mod@crate::reconcile::plan`], not here.
use std::{fmt, io};

use ipnet::IpNet;
use lb_common::{
    BackendEntry, BackendId, FrontendEntry, FrontendKey, IpFamily, Networks, ServiceEntry,
    ServiceId, SlotEntry, V4, V6,
};

pub mod bpf;
pub mod contents;
pub mod dump;
pub mod fake;
pub mod faulty;

pub use contents::{FamilyContents, MapContents, MapFamily};

/// The maps that the agent fills with services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapName {
    /// `FRONTENDS_V4`
    FrontendsV4,
    /// `FRONTENDS_V6`
    FrontendsV6,
    /// `NETWORKS`
    Networks,
    /// `FRONTEND_EPOCH`
    FrontendEpoch,
    /// `SERVICES`
    Services,
    /// `SLOTS`
    Slots,
    /// `BACKENDS_V4`
    BackendsV4,
    /// `BACKENDS_V6`
    BackendsV6,
    /// `SOURCE_RANGES_V4`
    SourceRangesV4,
    /// `SOURCE_RANGES_V6`
    SourceRangesV6,
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FrontendsV4 => "FRONTENDS_V4",
            Self::FrontendsV6 => "FRONTENDS_V6",
            Self::Networks => "NETWORKS",
            Self::FrontendEpoch => "FRONTEND_EPOCH",
            Self::Services => "SERVICES",
            Self::Slots => "SLOTS",
            Self::BackendsV4 => "BACKENDS_V4",
            Self::BackendsV6 => "BACKENDS_V6",
            Self::SourceRangesV4 => "SOURCE_RANGES_V4",
            Self::SourceRangesV6 => "SOURCE_RANGES_V6",
        })
    }
}

/// Why a map operation did not happen. The map is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The kernel answered `E2BIG` or `ENOMEM`: there is no room for one entry more.
    #[error(
        "the map {map} is full: fewer services, or a larger map, are needed; see the map fill in `waggle status`"
    )]
    Full {
        /// Which map.
        map: MapName,
    },
    /// The kernel refused for another reason.
    #[error("the map {map} cannot be {operation}: {source}")]
    Io {
        /// Which map.
        map: MapName,
        /// "read" or "written".
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl MapError {
    /// The map it is about.
    pub const fn map(&self) -> MapName {
        match self {
            Self::Full { map } | Self::Io { map, .. } => *map,
        }
    }
}

/// How many entries each map has room for, in entries. Index 0 of SERVICES and BACKENDS is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Of `FRONTENDS_V4` and of `FRONTENDS_V6`, beside one for each backend's own address.
    pub frontends: u32,
    /// Of SERVICES.
    pub services: u32,
    /// Of SLOTS.
    pub slots: u32,
    /// Of `BACKENDS_V4` and of `BACKENDS_V6`.
    pub backends: u32,
    /// Of `SOURCE_RANGES_V4` and of `SOURCE_RANGES_V6`.
    pub source_ranges: u32,
}

impl Capacities {
    /// The capacities that `lb_common::maps` declares.
    pub const DECLARED: Self = Self {
        frontends: 65_536,
        services: 65_536,
        slots: 262_144,
        backends: 65_536,
        source_ranges: 65_536,
    };
}

/// The maps that exist once for each IP family.
pub trait FamilyMaps<F: IpFamily> {
    /// Every frontend.
    fn read_frontends(&self) -> Result<Vec<(FrontendKey<F>, FrontendEntry)>, MapError>;
    /// Writes a frontend, over an older one if there is one.
    fn put_frontend(&mut self, key: &FrontendKey<F>, entry: &FrontendEntry)
    -> Result<(), MapError>;
    /// Removes a frontend. One that is not there is no error.
    fn remove_frontend(&mut self, key: &FrontendKey<F>) -> Result<(), MapError>;

    /// Every backend that is not all zero, freed ones included: their generation is remembered nowhere else.
    fn read_backends(&self) -> Result<Vec<(BackendId, BackendEntry<F>)>, MapError>;
    /// Writes a backend. Where nothing but `state` differs from the entry that stands there, no reader can see a torn
    /// entry; the plan writes anything else only while nothing refers to the id.
    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry<F>) -> Result<(), MapError>;

    /// Every service's source ranges.
    fn read_source_ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, MapError>;
    /// Lets clients within a prefix of this family dial a service's load balancer.
    fn put_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError>;
    /// Takes that back. One that is not there is no error.
    fn remove_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError>;
}

/// All maps that the agent fills.
pub trait LbMaps: FamilyMaps<V4> + FamilyMaps<V6> {
    /// How much fits.
    fn capacities(&self) -> Capacities;

    /// Who is a pod of the cluster.
    fn read_networks(&self) -> Result<Networks, MapError>;
    /// Replaces that, word by word: no list of backends depends on it.
    fn put_networks(&mut self, networks: &Networks) -> Result<(), MapError>;

    /// How often frontends were given to other services, or removed.
    fn read_frontend_epoch(&self) -> Result<u32, MapError>;
    /// Replaces that, by one store.
    fn put_frontend_epoch(&mut self, epoch: u32) -> Result<(), MapError>;

    /// Every service that is not all zero.
    fn read_services(&self) -> Result<Vec<(ServiceId, ServiceEntry)>, MapError>;
    /// Writes a service. The region in it is seen by readers as a whole, the old one or the new one.
    fn put_service(&mut self, id: ServiceId, entry: &ServiceEntry) -> Result<(), MapError>;
    /// Zeroes a service.
    fn remove_service(&mut self, id: ServiceId) -> Result<(), MapError>;

    /// `length` slots from `start` on; the caller asks for regions that services name.
    fn read_slots(&self, start: u32, length: u32) -> Result<Vec<SlotEntry>, MapError>;
    /// Writes slots from `start` on. No service names the region at this time. On an error some may be written.
    fn put_slots(&mut self, start: u32, slots: &[SlotEntry]) -> Result<(), MapError>;
}

/// Reads everything that a packet can meet: all frontends, services and backends, and the slots of the regions that
/// services name.
pub fn read_contents<M: LbMaps + ?Sized>(maps: &M) -> Result<MapContents, MapError> {
    let mut contents = MapContents {
        networks: maps.read_networks()?,
        frontend_epoch: maps.read_frontend_epoch()?,
        // The agent that wrote the maps may have ended before it raised the epoch.
        frontends_moved: true,
        services: maps.read_services()?.into_iter().collect(),
        ..MapContents::default()
    };
    read_family::<V4, M>(maps, &mut contents)?;
    read_family::<V6, M>(maps, &mut contents)?;
    let capacity = maps.capacities().slots;
    for entry in contents.services.values() {
        let (start, length) = (entry.slots.start(), entry.slots.length());
        if start.checked_add(length).is_none_or(|end| end > capacity) {
            continue;
        }
        let slots = maps.read_slots(start, length)?;
        contents.slots.extend((start..).zip(slots));
    }
    Ok(contents)
}

fn read_family<F: MapFamily, M: FamilyMaps<F> + ?Sized>(
    maps: &M,
    contents: &mut MapContents,
) -> Result<(), MapError> {
    let family = F::of_mut(contents);
    family.frontends = maps.read_frontends()?.into_iter().collect();
    family.backends = maps.read_backends()?.into_iter().collect();
    family.source_ranges = maps.read_source_ranges()?.into_iter().collect();
    Ok(())
}
