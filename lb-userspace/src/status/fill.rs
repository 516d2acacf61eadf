//! How full the maps are, and what the kernel programs have counted: read from the pinned maps, agent or not.
use std::{io, path::Path};

use aya::maps::{Map, MapData, MapError as AyaError, PerCpuArray};
use lb_common::{Counter, ServiceEntry, ServiceId, V4, V6};
use serde::{Deserialize, Serialize};

use crate::{
    bpf::{batch, io_error},
    datapath::object::contract,
    maps::{FamilyMaps, LbMaps, MapError, bpf::BpfMaps},
};

/// A map and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries there is room for.
    pub capacity: u32,
}

/// A counter of the kernel programs, over all CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterValue {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub meaning: String,
    /// Its value.
    pub value: u64,
}

/// The fill of every map that holds entries, in the order of the shared list.
pub fn maps(folder: &Path) -> io::Result<Vec<MapFill>> {
    macro_rules! counts {
        ($($(#[$doc:meta])* $name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal;)*) => {
            [$((stringify!($name), counts!(@ $kind $key, $value))),*]
        };
        (@ HashMap $key:ty, $value:ty) => { Some(hash::<$key, $value> as Count) };
        (@ LruHashMap $key:ty, $value:ty) => { Some(hash::<$key, $value> as Count) };
        (@ $kind:ident $key:ty, $value:ty) => { None::<Count> };
    }
    let counts = lb_common::for_each_map!(counts);
    // Whether there are any is asked of the folder: that has an answer for those who are not root, too.
    drop(std::fs::read_dir(folder)?);
    let tables = BpfMaps::open(folder).map_err(of_its_kind)?;
    let services = tables.read_services().map_err(of_its_kind)?;
    let mut fills = Vec::new();
    for (spec, (name, count)) in contract::MAPS.iter().zip(counts) {
        let path = folder.join(name);
        let used = match (count, name) {
            (Some(count), _) => count(&path)?,
            (None, "SERVICES") => count_of(&services),
            (None, "SLOTS") => slots(&services),
            (None, "BACKENDS_V4") => {
                count_of(&FamilyMaps::<V4>::read_backends(&tables).map_err(of_its_kind)?)
            }
            (None, "BACKENDS_V6") => {
                count_of(&FamilyMaps::<V6>::read_backends(&tables).map_err(of_its_kind)?)
            }
            (None, _) => continue,
        };
        let info = aya::maps::MapInfo::from_pin(&path).map_err(io_error)?;
        fills.push(MapFill {
            name: spec.name.to_owned(),
            used,
            capacity: info.max_entries(),
        });
    }
    Ok(fills)
}

/// The error as one of the kernel's: a map that is not there is not found.
fn of_its_kind(error: MapError) -> io::Error {
    let kind = match &error {
        MapError::Io { source, .. } => source.kind(),
        MapError::Full { .. } => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

type Count = fn(&Path) -> io::Result<u64>;

fn hash<K: bytemuck::Pod, V: bytemuck::Pod>(path: &Path) -> io::Result<u64> {
    let mut count = 0;
    batch::read::<K, V>(path, |_, _| count += 1)?;
    Ok(count)
}

fn count_of<T>(elements: &[T]) -> u64 {
    u64::try_from(elements.len()).unwrap_or(u64::MAX)
}

/// The slots that services name; regions that rest are not counted.
fn slots(services: &[(ServiceId, ServiceEntry)]) -> u64 {
    services
        .iter()
        .map(|(_, service)| u64::from(service.slots.length()))
        .sum()
}

/// Every counter that is not zero.
pub fn counters(folder: &Path) -> io::Result<Vec<CounterValue>> {
    drop(std::fs::read_dir(folder)?);
    let map: PerCpuArray<MapData, u64> = MapData::from_pin(folder.join("COUNTERS"))
        .and_then(Map::from_map_data)
        .and_then(TryInto::try_into)
        .map_err(|error: AyaError| io_error(error))?;
    let mut values = Vec::new();
    for counter in Counter::ALL {
        let by_cpu = map.get(&(*counter as u32), 0).map_err(io_error)?;
        let value = by_cpu.iter().sum();
        if value != 0 {
            values.push(CounterValue {
                name: counter.name().to_owned(),
                meaning: counter.meaning().trim().to_owned(),
                value,
            });
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_not_found() {
        let folder = Path::new("/nowhere/waggle/v1");
        let kinds = [
            maps(folder).unwrap_err().kind(),
            counters(folder).unwrap_err().kind(),
        ];
        assert_eq!(kinds, [io::ErrorKind::NotFound; 2]);
    }

    #[test]
    fn a_folder_without_maps_is_an_error_with_a_name() {
        let folder = std::env::temp_dir();
        let error = maps(&folder).unwrap_err().to_string();
        assert!(error.contains("FRONTENDS_V4"), "{error}");
    }
}
