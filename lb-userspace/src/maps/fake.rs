//! Maps made of plain collections, with the kernel's capacities.
use std::collections::BTreeMap;

use ipnet::IpNet;
use lb_common::{
    BackendEntry, BackendId, FrontendEntry, FrontendKey, Networks, ServiceEntry, ServiceId,
    SlotEntry,
};

use crate::maps::{Capacities, FamilyMaps, LbMaps, MapContents, MapError, MapFamily, MapName};

/// Maps in memory. `contents.slots` holds every slot that was ever written, as the kernel's array does.
#[derive(Clone, Debug)]
pub struct FakeMaps {
    /// What is in them.
    pub contents: MapContents,
    /// What they have room for.
    pub capacities: Capacities,
}

impl Default for FakeMaps {
    fn default() -> Self {
        Self::with_capacities(Capacities::DECLARED)
    }
}

impl FakeMaps {
    /// Empty maps with room for so much.
    pub fn with_capacities(capacities: Capacities) -> Self {
        Self {
            contents: MapContents::default(),
            capacities,
        }
    }
}

impl<F: MapFamily> FamilyMaps<F> for FakeMaps {
    fn read_frontends(&self) -> Result<Vec<(FrontendKey<F>, FrontendEntry)>, MapError> {
        Ok(copied(&F::of(&self.contents).frontends))
    }

    fn put_frontend(
        &mut self,
        key: &FrontendKey<F>,
        entry: &FrontendEntry,
    ) -> Result<(), MapError> {
        let Capacities {
            frontends,
            backends,
            ..
        } = self.capacities;
        let room = (frontends + backends) as usize;
        let frontends = &mut F::of_mut(&mut self.contents).frontends;
        if !frontends.contains_key(key) && frontends.len() >= room {
            return Err(MapError::Full { map: F::FRONTENDS });
        }
        frontends.insert(*key, *entry);
        Ok(())
    }

    fn remove_frontend(&mut self, key: &FrontendKey<F>) -> Result<(), MapError> {
        F::of_mut(&mut self.contents).frontends.remove(key);
        Ok(())
    }

    fn read_backends(&self) -> Result<Vec<(BackendId, BackendEntry<F>)>, MapError> {
        Ok(copied(&F::of(&self.contents).backends))
    }

    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry<F>) -> Result<(), MapError> {
        if id >= self.capacities.backends {
            return Err(MapError::Full { map: F::BACKENDS });
        }
        F::of_mut(&mut self.contents).backends.insert(id, *entry);
        Ok(())
    }

    fn read_source_ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, MapError> {
        let ranges = &F::of(&self.contents).source_ranges;
        Ok(ranges.iter().copied().collect())
    }

    fn put_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
        let ranges = &mut F::of_mut(&mut self.contents).source_ranges;
        let is_new = !ranges.contains(&(id, range));
        if is_new && ranges.len() >= self.capacities.source_ranges as usize {
            return Err(MapError::Full {
                map: F::SOURCE_RANGES,
            });
        }
        ranges.insert((id, range));
        Ok(())
    }

    fn remove_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
        let ranges = &mut F::of_mut(&mut self.contents).source_ranges;
        ranges.remove(&(id, range));
        Ok(())
    }
}

impl LbMaps for FakeMaps {
    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn read_networks(&self) -> Result<Networks, MapError> {
        Ok(self.contents.networks)
    }

    fn put_networks(&mut self, networks: &Networks) -> Result<(), MapError> {
        self.contents.networks = *networks;
        Ok(())
    }

    fn read_frontend_epoch(&self) -> Result<u32, MapError> {
        Ok(self.contents.frontend_epoch)
    }

    fn put_frontend_epoch(&mut self, epoch: u32) -> Result<(), MapError> {
        self.contents.frontend_epoch = epoch;
        Ok(())
    }

    fn read_services(&self) -> Result<Vec<(ServiceId, ServiceEntry)>, MapError> {
        Ok(copied(&self.contents.services))
    }

    fn put_service(&mut self, id: ServiceId, entry: &ServiceEntry) -> Result<(), MapError> {
        if id >= self.capacities.services {
            return Err(MapError::Full {
                map: MapName::Services,
            });
        }
        self.contents.services.insert(id, *entry);
        Ok(())
    }

    fn remove_service(&mut self, id: ServiceId) -> Result<(), MapError> {
        self.contents.services.remove(&id);
        Ok(())
    }

    fn read_slots(&self, start: u32, length: u32) -> Result<Vec<SlotEntry>, MapError> {
        let slot = |index| self.contents.slots.get(&index).copied().unwrap_or_default();
        Ok((start..start + length).map(slot).collect())
    }

    fn put_slots(&mut self, start: u32, slots: &[SlotEntry]) -> Result<(), MapError> {
        let fits = (start as usize).saturating_add(slots.len()) <= self.capacities.slots as usize;
        if !fits {
            return Err(MapError::Full {
                map: MapName::Slots,
            });
        }
        self.contents
            .slots
            .extend((start..).zip(slots.iter().copied()));
        Ok(())
    }
}

fn copied<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> Vec<(K, V)> {
    map.iter().map(|(key, value)| (*key, *value)).collect()
}
