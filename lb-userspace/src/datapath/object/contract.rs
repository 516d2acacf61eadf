//! Do the maps that are pinned here have the kinds and sizes that this program and its object expect?
//!
//! aya reuses a pinned map without comparing anything but its name, so a map of other sizes would be read as garbage.
use std::{fmt, path::Path};

use aya::maps::{MapInfo, MapType};
use aya_obj::{Object, generated::bpf_map_type};

/// A map as [`lb_common::for_each_map`] declares it. A ring buffer has neither key nor value in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    /// Its name in the object, and of its pin.
    pub name: &'static str,
    /// What kind of map it is.
    pub kind: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most entries; bytes for a ring buffer.
    pub capacity: u32,
}

macro_rules! specs {
    ($($(#[$doc:meta])* $name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal;)*) => {
        /// Every map, in the order of the list.
        pub const MAPS: &[MapSpec] = &[$(MapSpec {
            name: stringify!($name),
            kind: specs!(@kind $kind),
            key_size: specs!(@key $kind $key),
            value_size: specs!(@size $kind $value),
            capacity: $capacity,
        }),*];
    };
    (@kind HashMap) => { MapType::Hash };
    (@kind LruHashMap) => { MapType::LruHash };
    (@kind Array) => { MapType::Array };
    (@kind PerCpuArray) => { MapType::PerCpuArray };
    (@kind RingBuf) => { MapType::RingBuf };
    (@kind LpmTrie) => { MapType::LpmTrie };
    (@key LpmTrie $type:ty) => { (size_of::<u32>() + size_of::<$type>()) as u32 };
    (@key $kind:ident $type:ty) => { specs!(@size $kind $type) };
    (@size RingBuf $type:ty) => { 0 };
    (@size $kind:ident $type:ty) => { size_of::<$type>() as u32 };
}
#[expect(
    clippy::cast_possible_truncation,
    reason = "sizes of keys and values: const context, a few bytes each"
)]
mod list {
    use super::{MapSpec, MapType};
    lb_common::for_each_map!(specs);
}
pub use list::MAPS;

/// Capacities that the configuration sets in place of the list's, by map name.
pub type ConfiguredCapacities = std::collections::BTreeMap<&'static str, u32>;

/// The specs with the configured capacities.
pub fn specs(capacities: &ConfiguredCapacities) -> impl Iterator<Item = MapSpec> {
    MAPS.iter().map(|spec| MapSpec {
        capacity: capacities.get(spec.name).copied().unwrap_or(spec.capacity),
        ..*spec
    })
}

/// A pinned map that is not what it should be.
#[derive(Debug)]
pub struct Mismatch {
    name: &'static str,
    what: &'static str,
    expected: String,
    found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is {} there, and must be {}",
            self.name, self.what, self.found, self.expected
        )
    }
}

/// What a map turned out to be.
struct Found {
    kind: String,
    key_size: u32,
    value_size: u32,
    capacity: u32,
}

fn differences(spec: &MapSpec, found: &Found) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    let mut compare = |what, expected: String, is: String| {
        if expected != is {
            mismatches.push(Mismatch {
                name: spec.name,
                what,
                expected,
                found: is,
            });
        }
    };
    compare("the kind", format!("{:?}", spec.kind), found.kind.clone());
    for (what, expected, is) in [
        ("the size of a key", spec.key_size, found.key_size),
        ("the size of a value", spec.value_size, found.value_size),
        ("the capacity", spec.capacity, found.capacity),
    ] {
        compare(what, expected.to_string(), is.to_string());
    }
    mismatches
}

fn kind(kind: Option<MapType>) -> String {
    kind.map_or_else(|| "unknown".to_owned(), |kind| format!("{kind:?}"))
}

/// Compares the maps that an object declares with the list; a map of the list that the object does not have is none of
/// its business.
pub fn check_object(object: &Object) -> Vec<Mismatch> {
    MAPS.iter()
        .filter_map(|spec| {
            let map = object.maps.get(spec.name)?;
            let map_kind = bpf_map_type::try_from(map.map_type())
                .ok()
                .and_then(|kind| MapType::try_from(kind).ok());
            let found = Found {
                kind: kind(map_kind),
                key_size: map.key_size(),
                value_size: map.value_size(),
                capacity: map.max_entries(),
            };
            Some(differences(spec, &found))
        })
        .flatten()
        .collect()
}

/// Compares every pinned map in a folder; maps that are not there yet are fine.
pub fn check_pinned(folder: &Path, capacities: &ConfiguredCapacities) -> Vec<Mismatch> {
    specs(capacities)
        .filter_map(|spec| {
            let info = MapInfo::from_pin(folder.join(spec.name)).ok()?;
            let found = Found {
                kind: kind(info.map_type().ok()),
                key_size: info.key_size(),
                value_size: info.value_size(),
                capacity: info.max_entries(),
            };
            Some(differences(&spec, &found))
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_has_a_name_of_its_own_and_room() {
        let names: std::collections::BTreeSet<_> = MAPS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), MAPS.len());
        assert!(MAPS.iter().all(|spec| spec.capacity > 0));
    }

    #[test]
    fn what_the_agent_takes_for_declared_is_what_the_list_declares() {
        use crate::maps::{Capacities, MapName};
        let listed = |map: MapName| {
            let name = map.to_string();
            let mut specs = MAPS.iter();
            specs
                .find(|spec| spec.name == name)
                .map(|spec| spec.capacity)
        };
        let declared = Capacities::DECLARED;
        for (map, capacity) in [
            (MapName::FrontendsV4, declared.frontends + declared.backends),
            (MapName::FrontendsV6, declared.frontends + declared.backends),
            (MapName::Services, declared.services),
            (MapName::Slots, declared.slots),
            (MapName::BackendsV4, declared.backends),
            (MapName::BackendsV6, declared.backends),
            (MapName::SourceRangesV4, declared.source_ranges),
            (MapName::SourceRangesV6, declared.source_ranges),
        ] {
            assert_eq!(listed(map), Some(capacity), "{map}");
        }
    }

    #[test]
    fn a_configured_capacity_takes_the_place_of_the_lists() {
        let capacities = ConfiguredCapacities::from([("FLOWS_V4", 1000)]);
        let capacity = |name| {
            specs(&capacities)
                .find(|spec| spec.name == name)
                .map(|spec| spec.capacity)
        };
        assert_eq!(capacity("FLOWS_V4"), Some(1000));
        assert_ne!(capacity("FLOWS_V6"), Some(1000));
    }
}
