//! The maps in the kernel.
#![expect(
    unsafe_code,
    reason = "aya wants a promise of its own for plain old data; bytemuck has checked it"
)]
use std::{collections::BTreeMap, io, net::IpAddr, path::Path};

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError as AyaError, MapInfo, lpm_trie::Key},
};
use ipnet::IpNet;
use lb_common::{
    BackendEntry, BackendId, DeviceEntry, FrontendEntry, FrontendKey, Networks, ServiceEntry,
    ServiceId, SlotEntry, SourceRange, V4, V6,
};

use super::{Capacities, FamilyMaps, LbMaps, MapError, MapFamily, MapName};
use crate::bpf::{batch, io_error};

/// A key or a value as aya takes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<T>(pub T);

// SAFETY: `bytemuck::Pod` is the same promise (no padding, any bit pattern, no pointers), proven by its derive or by
// lb-common's macro; the wrapper is transparent.
unsafe impl<T: bytemuck::Pod> Pod for Plain<T> {}

type Trie<F> = LpmTrie<MapData, Plain<SourceRange<F>>, u32>;
type Hash<K, V> = HashMap<MapData, Plain<K>, Plain<V>>;
type Table<V> = Array<MapData, Plain<V>>;

/// The pinned maps of services.
pub struct BpfMaps {
    frontends_v4: Hash<FrontendKey<V4>, FrontendEntry>,
    frontends_v6: Hash<FrontendKey<V6>, FrontendEntry>,
    backends_v4: Elements<BackendEntry<V4>>,
    backends_v6: Elements<BackendEntry<V6>>,
    source_ranges_v4: Trie<V4>,
    source_ranges_v6: Trie<V6>,
    networks: Elements<Networks>,
    frontend_epoch: Elements<u32>,
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
            source_ranges_v4: opened(
                pinned(folder, MapName::SourceRangesV4)?,
                MapName::SourceRangesV4,
            )?,
            source_ranges_v6: opened(
                pinned(folder, MapName::SourceRangesV6)?,
                MapName::SourceRangesV6,
            )?,
            networks: Elements::open(folder, MapName::Networks)?,
            frontend_epoch: Elements::open(folder, MapName::FrontendEpoch)?,
            services: Elements::open(folder, MapName::Services)?,
            slots: Elements::open(folder, MapName::Slots)?,
            capacities: Capacities {
                frontends: capacity(MapName::FrontendsV4)?
                    .saturating_sub(capacity(MapName::BackendsV4)?),
                services: capacity(MapName::Services)?,
                slots: capacity(MapName::Slots)?,
                backends: capacity(MapName::BackendsV4)?,
                source_ranges: capacity(MapName::SourceRangesV4)?,
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
    ($family:ty, $frontends:ident, $backends:ident, $ranges:ident) => {
        impl FamilyMaps<$family> for BpfMaps {
            fn read_frontends(
                &self,
            ) -> Result<Vec<(FrontendKey<$family>, FrontendEntry)>, MapError> {
                entries(&self.$frontends, <$family>::FRONTENDS)
            }
            fn put_frontend(
                &mut self,
                key: &FrontendKey<$family>,
                entry: &FrontendEntry,
            ) -> Result<(), MapError> {
                self.$frontends
                    .insert(Plain(*key), Plain(*entry), 0)
                    .map_err(|error| failed(<$family>::FRONTENDS, "written", error))
            }
            fn remove_frontend(&mut self, key: &FrontendKey<$family>) -> Result<(), MapError> {
                removed(self.$frontends.remove(&Plain(*key)), <$family>::FRONTENDS)
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
            fn read_source_ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, MapError> {
                let ranges = self.$ranges.keys().map(|key| match key {
                    Ok(key) => Ok(from_key::<$family>(&key)),
                    Err(error) => Err(failed(<$family>::SOURCE_RANGES, "read", error)),
                });
                ranges.filter_map(Result::transpose).collect()
            }
            fn put_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
                let Some(key) = range_key::<$family>(id, range) else {
                    return Ok(());
                };
                self.$ranges
                    .insert(&key, 0, 0)
                    .map_err(|error| failed(<$family>::SOURCE_RANGES, "written", error))
            }
            fn remove_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
                match range_key::<$family>(id, range) {
                    Some(key) => removed(self.$ranges.remove(&key), <$family>::SOURCE_RANGES),
                    None => Ok(()),
                }
            }
        }
    };
}
family!(V4, frontends_v4, backends_v4, source_ranges_v4);
family!(V6, frontends_v6, backends_v6, source_ranges_v6);

/// What is not there is as good as removed.
fn removed(result: Result<(), AyaError>, map: MapName) -> Result<(), MapError> {
    match result.map_err(|error| failed(map, "written", error)) {
        Err(MapError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// A key of `SOURCE_RANGES`.
pub type RangeKey<F> = Key<Plain<SourceRange<F>>>;

/// A prefix of a service as `SOURCE_RANGES` has it, if it is of this family.
pub fn range_key<F: MapFamily>(service_id: ServiceId, range: IpNet) -> Option<RangeKey<F>>
where
    SourceRange<F>: bytemuck::Pod,
{
    let address = F::address(range.network())?.into();
    let bits = SourceRange::<F>::SERVICE_BITS + u32::from(range.prefix_len());
    Some(Key::new(
        bits,
        Plain(SourceRange {
            service_id,
            address,
        }),
    ))
}

/// The way back; `None` for a key that nobody has written.
fn from_key<F: MapFamily>(key: &RangeKey<F>) -> Option<(ServiceId, IpNet)>
where
    SourceRange<F>: bytemuck::Pod,
{
    let Plain(range) = key.data();
    let length = key
        .prefix_len()
        .checked_sub(SourceRange::<F>::SERVICE_BITS)?;
    let address: IpAddr = F::Address::from(range.address).into();
    let range_of = IpNet::new(address, u8::try_from(length).ok()?).ok()?;
    Some((range.service_id, range_of))
}

impl LbMaps for BpfMaps {
    fn capacities(&self) -> Capacities {
        self.capacities
    }
    fn read_networks(&self) -> Result<Networks, MapError> {
        self.networks.get(0)
    }

    fn put_networks(&mut self, networks: &Networks) -> Result<(), MapError> {
        self.networks.set(0, *networks)
    }

    fn read_frontend_epoch(&self) -> Result<u32, MapError> {
        self.frontend_epoch.get(0)
    }

    fn put_frontend_epoch(&mut self, epoch: u32) -> Result<(), MapError> {
        self.frontend_epoch.set(0, epoch)
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
