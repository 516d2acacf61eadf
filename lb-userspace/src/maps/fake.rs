//! Maps made of plain collections, with the kernel's capacities.
use std::collections::BTreeMap;

use lb_common::{
    BackendEntry, BackendId, FrontendEntry, FrontendKey, Senders, ServiceEntry, ServiceId,
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
        let frontends = &mut F::of_mut(&mut self.contents).frontends;
        if !frontends.contains_key(key) && frontends.len() >= self.capacities.frontends as usize {
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
}

impl LbMaps for FakeMaps {
    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn read_senders(&self) -> Result<Senders, MapError> {
        Ok(self.contents.senders)
    }

    fn put_senders(&mut self, senders: &Senders) -> Result<(), MapError> {
        self.contents.senders = *senders;
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
