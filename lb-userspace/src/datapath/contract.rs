//! Do the maps that are pinned here have the kinds and sizes that this program and its object expect?
//!
//! aya reuses a pinned map without comparing anything but its name, so a map of other sizes would be read as garbage.
use std::{fmt, path::Path};

use aya::maps::{MapInfo, MapType};

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
            key_size: specs!(@size $kind $key),
            value_size: specs!(@size $kind $value),
            capacity: $capacity,
        }),*];
    };
    (@kind HashMap) => { MapType::Hash };
    (@kind LruHashMap) => { MapType::LruHash };
    (@kind Array) => { MapType::Array };
    (@kind PerCpuArray) => { MapType::PerCpuArray };
    (@kind RingBuf) => { MapType::RingBuf };
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
pub type Capacities = std::collections::BTreeMap<&'static str, u32>;

/// The specs with the configured capacities.
pub fn specs(capacities: &Capacities) -> impl Iterator<Item = MapSpec> {
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

/// Compares what the kernel says of a map with what it must be. An empty answer is a yes.
pub fn differences(spec: &MapSpec, info: &MapInfo) -> Vec<Mismatch> {
    let mut found = Vec::new();
    let mut compare = |what, expected: &dyn fmt::Display, is: &dyn fmt::Display| {
        let (expected, is) = (expected.to_string(), is.to_string());
        if expected != is {
            found.push(Mismatch {
                name: spec.name,
                what,
                expected,
                found: is,
            });
        }
    };
    let kind = info
        .map_type()
        .map_or_else(|_| "unknown".to_owned(), |kind| format!("{kind:?}"));
    compare("the kind", &format!("{:?}", spec.kind), &kind);
    compare("the size of a key", &spec.key_size, &info.key_size());
    compare("the size of a value", &spec.value_size, &info.value_size());
    compare("the capacity", &spec.capacity, &info.max_entries());
    found
}

/// Compares every pinned map in a folder; maps that are not there yet are fine.
pub fn check_pinned(folder: &Path, capacities: &Capacities) -> Vec<Mismatch> {
    specs(capacities)
        .filter_map(|spec| {
            let info = MapInfo::from_pin(folder.join(spec.name)).ok()?;
            Some(differences(&spec, &info))
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
    fn a_configured_capacity_takes_the_place_of_the_lists() {
        let capacities = Capacities::from([("FLOWS_V4", 1000)]);
        let capacity = |name| {
            specs(&capacities)
                .find(|spec| spec.name == name)
                .map(|spec| spec.capacity)
        };
        assert_eq!(capacity("FLOWS_V4"), Some(1000));
        assert_ne!(capacity("FLOWS_V6"), Some(1000));
    }
}
