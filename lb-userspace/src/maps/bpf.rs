//! The maps in the kernel.
#![expect(
    unsafe_code,
    reason = "aya wants a promise of its own for plain old data; bytemuck has checked it"
)]
use std::{collections::BTreeMap, io, path::Path};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError as AyaError, MapInfo},
};
use lb_common::{
    BackendEntry, BackendId, DeviceEntry, FrontendEntry, FrontendKey, Senders, ServiceEntry,
    ServiceId, SlotEntry, V4, V6,
};

use super::{Capacities, FamilyMaps, LbMaps, MapError, MapName};
use crate::datapath::batch;

/// A key or a value as aya takes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<T>(pub T);

// SAFETY: `bytemuck::Pod` is the same promise (no padding, any bit pattern, no pointers), proven by its derive or by
// lb-common's macro; the wrapper is transparent.
unsafe impl<T: bytemuck::Pod> Pod for Plain<T> {}

/// The kernel's answer inside an error of aya's, if there is one.
pub(crate) fn io_error(error: AyaError) -> io::Error {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "two of aya's errors mean something to a caller"
    )]
    match error {
        AyaError::SyscallError(error) => error.io_error,
        AyaError::KeyNotFound | AyaError::ElementNotFound => {
            io::Error::from_raw_os_error(libc::ENOENT)
        }
        other => io::Error::other(other),
    }
}

type Hash<K, V> = HashMap<MapData, Plain<K>, Plain<V>>;
type Table<V> = Array<MapData, Plain<V>>;

/// The pinned maps of services.
pub struct BpfMaps {
    frontends_v4: Hash<FrontendKey<V4>, FrontendEntry>,
    frontends_v6: Hash<FrontendKey<V6>, FrontendEntry>,
    backends_v4: Elements<BackendEntry<V4>>,
    backends_v6: Elements<BackendEntry<V6>>,
    senders: Elements<Senders>,
    services: Elements<ServiceEntry>,
    slots: Elements<SlotEntry>,
    capacities: Capacities,
}

impl BpfMaps {
    /// Opens the maps pinned in this folder. Their kinds and sizes have been compared when the object was loaded.
    pub fn open(folder: &Path) -> Result<Self, MapError> {
        let capacity = |name| capacity(folder, name);
        Ok(Self {
            frontends_v4: opened(pinned(folder, MapName::FrontendsV4)?, MapName::FrontendsV4)?,
            frontends_v6: opened(pinned(folder, MapName::FrontendsV6)?, MapName::FrontendsV6)?,
            backends_v4: Elements::open(folder, MapName::BackendsV4)?,
            backends_v6: Elements::open(folder, MapName::BackendsV6)?,
            senders: Elements::open(folder, MapName::Senders)?,
            services: Elements::open(folder, MapName::Services)?,
            slots: Elements::open(folder, MapName::Slots)?,
            capacities: Capacities {
                frontends: capacity(MapName::FrontendsV4)?,
                services: capacity(MapName::Services)?,
                slots: capacity(MapName::Slots)?,
                backends: capacity(MapName::BackendsV4)?,
            },
        })
    }
}

fn pinned(folder: &Path, map: MapName) -> Result<Map, MapError> {
    MapData::from_pin(folder.join(map.to_string()))
        .and_then(Map::from_map_data)
        .map_err(|error| failed(map, "read", error))
}

fn opened<T: TryFrom<Map, Error = AyaError>>(map: Map, name: MapName) -> Result<T, MapError> {
    T::try_from(map).map_err(|error| failed(name, "read", error))
}

fn capacity(folder: &Path, map: MapName) -> Result<u32, MapError> {
    MapInfo::from_pin(folder.join(map.to_string()))
        .map(|info| info.max_entries())
        .map_err(|error| failed(map, "read", error))
}

fn failed(map: MapName, operation: &'static str, error: AyaError) -> MapError {
    let source = io_error(error);
    match source.raw_os_error() {
        Some(libc::E2BIG | libc::ENOMEM) => MapError::Full { map },
        _ => MapError::Io {
            map,
            operation,
            source,
        },
    }
}

/// An array of the agent's.
struct Elements<V: bytemuck::Pod> {
    table: Table<V>,
    /// The same map, for reading it as a whole.
    data: MapData,
    name: MapName,
}

impl<V: bytemuck::Pod + PartialEq> Elements<V> {
    fn open(folder: &Path, name: MapName) -> Result<Self, MapError> {
        Ok(Self {
            table: opened(pinned(folder, name)?, name)?,
            data: MapData::from_pin(folder.join(name.to_string()))
                .map_err(|error| failed(name, "read", error))?,
            name,
        })
    }

    /// Every element that is not all zero.
    fn read(&self) -> Result<Vec<(u32, V)>, MapError> {
        let mut found = Vec::new();
        batch::read_map::<u32, V>(&self.data, |index, value| {
            if *value != V::zeroed() {
                found.push((*index, *value));
            }
        })
        .map_err(|source| MapError::Io {
            map: self.name,
            operation: "read",
            source,
        })?;
        Ok(found)
    }

    fn get(&self, index: u32) -> Result<V, MapError> {
        match self.table.get(&index, 0) {
            Ok(Plain(value)) => Ok(value),
            Err(error) => Err(failed(self.name, "read", error)),
        }
    }

    fn set(&mut self, index: u32, value: V) -> Result<(), MapError> {
        self.table
            .set(index, Plain(value), 0)
            .map_err(|error| failed(self.name, "written", error))
    }
}

/// Every entry of a hash. The agent is the only writer of these, so that an entry cannot vanish while it reads.
fn entries<K: bytemuck::Pod, V: bytemuck::Pod>(
    hash: &Hash<K, V>,
    map: MapName,
) -> Result<Vec<(K, V)>, MapError>
where
    Plain<K>: Pod,
{
    hash.iter()
        .map(|entry| match entry {
            Ok((Plain(key), Plain(value))) => Ok((key, value)),
            Err(error) => Err(failed(map, "read", error)),
        })
        .collect()
}

macro_rules! family {
    ($family:ty, $frontends:ident, $frontends_name:ident, $backends:ident) => {
        impl FamilyMaps<$family> for BpfMaps {
            fn read_frontends(
                &self,
            ) -> Result<Vec<(FrontendKey<$family>, FrontendEntry)>, MapError> {
                entries(&self.$frontends, MapName::$frontends_name)
            }
            fn put_frontend(
                &mut self,
                key: &FrontendKey<$family>,
                entry: &FrontendEntry,
            ) -> Result<(), MapError> {
                self.$frontends
                    .insert(Plain(*key), Plain(*entry), 0)
                    .map_err(|error| failed(MapName::$frontends_name, "written", error))
            }
            fn remove_frontend(&mut self, key: &FrontendKey<$family>) -> Result<(), MapError> {
                match self.$frontends.remove(&Plain(*key)) {
                    Ok(()) => Ok(()),
                    Err(error) => match failed(MapName::$frontends_name, "written", error) {
                        MapError::Io { source, .. }
                            if source.raw_os_error() == Some(libc::ENOENT) =>
                        {
                            Ok(())
                        }
                        error => Err(error),
                    },
                }
            }
            fn read_backends(&self) -> Result<Vec<(BackendId, BackendEntry<$family>)>, MapError> {
                self.$backends.read()
            }
            fn put_backend(
                &mut self,
                id: BackendId,
                entry: &BackendEntry<$family>,
            ) -> Result<(), MapError> {
                self.$backends.set(id, *entry)
            }
        }
    };
}
family!(V4, frontends_v4, FrontendsV4, backends_v4);
family!(V6, frontends_v6, FrontendsV6, backends_v6);

impl LbMaps for BpfMaps {
    fn capacities(&self) -> Capacities {
        self.capacities
    }
    fn read_senders(&self) -> Result<Senders, MapError> {
        self.senders.get(0)
    }

    fn put_senders(&mut self, senders: &Senders) -> Result<(), MapError> {
        self.senders.set(0, *senders)
    }

    fn read_services(&self) -> Result<Vec<(ServiceId, ServiceEntry)>, MapError> {
        self.services.read()
    }
    fn put_service(&mut self, id: ServiceId, entry: &ServiceEntry) -> Result<(), MapError> {
        self.services.set(id, *entry)
    }
    fn remove_service(&mut self, id: ServiceId) -> Result<(), MapError> {
        self.put_service(id, &ServiceEntry::default())
    }
    fn read_slots(&self, start: u32, length: u32) -> Result<Vec<SlotEntry>, MapError> {
        (start..start.saturating_add(length))
            .map(|index| self.slots.get(index))
            .collect()
    }
    fn put_slots(&mut self, start: u32, slots: &[SlotEntry]) -> Result<(), MapError> {
        for (index, slot) in (start..).zip(slots) {
            self.slots.set(index, *slot)?;
        }
        Ok(())
    }
}

/// DEVICES.
#[derive(Debug)]
pub(crate) struct DeviceTable(HashMap<MapData, u32, Plain<DeviceEntry>>);

impl DeviceTable {
    /// The pinned map in this folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, AyaError> {
        let data = MapData::from_pin(folder.join("DEVICES"))?;
        Ok(Self(Map::from_map_data(data)?.try_into()?))
    }
    /// What it holds; an entry that vanishes meanwhile is not in it.
    pub(crate) fn read(&self) -> BTreeMap<u32, DeviceEntry> {
        self.0
            .iter()
            .filter_map(Result::ok)
            .map(|(index, Plain(entry))| (index, entry))
            .collect()
    }
    /// Writes an entry.
    pub(crate) fn put(&mut self, index: u32, entry: &DeviceEntry) -> io::Result<()> {
        self.0.insert(index, Plain(*entry), 0).map_err(io_error)
    }
    /// Removes an entry, if it is there.
    pub(crate) fn remove(&mut self, index: u32) {
        drop(self.0.remove(&index));
    }
}
