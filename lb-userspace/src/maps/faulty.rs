//! Maps that fail as told: what the agent does about it is tested through the same trait as success.
use std::{cell::Cell, collections::VecDeque, io};

use ipnet::IpNet;
use lb_common::{
    BackendEntry, BackendId, FrontendEntry, FrontendKey, Networks, ServiceEntry, ServiceId,
    SlotEntry,
};

use crate::maps::{Capacities, FamilyMaps, LbMaps, MapError, MapFamily, MapName, fake::FakeMaps};

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It happens.
    None,
    /// The kernel says the map is full.
    Full,
    /// The kernel says something else, and nothing was written.
    Io,
    /// The kernel says something else, but it was written all the same.
    IoAfterWriting,
}

/// Fake maps with a script of faults: each write takes the next one, and after the last everything succeeds.
#[derive(Debug, Default)]
pub struct FaultyMaps {
    /// The maps behind.
    pub maps: FakeMaps,
    /// The faults of the next writes.
    pub faults: VecDeque<Fault>,
    /// How many reads fail from now on.
    pub failing_reads: Cell<u32>,
}

impl FaultyMaps {
    fn write(
        &mut self,
        map: MapName,
        write: impl FnOnce(&mut FakeMaps) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        match self.faults.pop_front().unwrap_or(Fault::None) {
            Fault::None => write(&mut self.maps),
            Fault::Full => Err(MapError::Full { map }),
            Fault::Io => Err(injected(map, "written")),
            Fault::IoAfterWriting => {
                write(&mut self.maps)?;
                Err(injected(map, "written"))
            }
        }
    }

    fn read<T>(
        &self,
        map: MapName,
        read: impl FnOnce(&FakeMaps) -> Result<T, MapError>,
    ) -> Result<T, MapError> {
        match self.failing_reads.get().checked_sub(1) {
            Some(rest) => {
                self.failing_reads.set(rest);
                Err(injected(map, "read"))
            }
            None => read(&self.maps),
        }
    }
}

fn injected(map: MapName, operation: &'static str) -> MapError {
    MapError::Io {
        map,
        operation,
        source: io::Error::other("injected fault"),
    }
}

impl<F: MapFamily> FamilyMaps<F> for FaultyMaps {
    fn read_frontends(&self) -> Result<Vec<(FrontendKey<F>, FrontendEntry)>, MapError> {
        self.read(F::FRONTENDS, FamilyMaps::<F>::read_frontends)
    }
    fn put_frontend(
        &mut self,
        key: &FrontendKey<F>,
        entry: &FrontendEntry,
    ) -> Result<(), MapError> {
        self.write(F::FRONTENDS, |maps| maps.put_frontend(key, entry))
    }
    fn remove_frontend(&mut self, key: &FrontendKey<F>) -> Result<(), MapError> {
        self.write(F::FRONTENDS, |maps| maps.remove_frontend(key))
    }
    fn read_backends(&self) -> Result<Vec<(BackendId, BackendEntry<F>)>, MapError> {
        self.read(F::BACKENDS, FamilyMaps::<F>::read_backends)
    }
    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry<F>) -> Result<(), MapError> {
        self.write(F::BACKENDS, |maps| maps.put_backend(id, entry))
    }
    fn read_source_ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, MapError> {
        self.read(F::SOURCE_RANGES, FamilyMaps::<F>::read_source_ranges)
    }
    fn put_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
        self.write(F::SOURCE_RANGES, |maps| {
            FamilyMaps::<F>::put_source_range(maps, id, range)
        })
    }
    fn remove_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
        self.write(F::SOURCE_RANGES, |maps| {
            FamilyMaps::<F>::remove_source_range(maps, id, range)
        })
    }
}

impl LbMaps for FaultyMaps {
    fn capacities(&self) -> Capacities {
        self.maps.capacities()
    }
    fn read_networks(&self) -> Result<Networks, MapError> {
        self.read(MapName::Networks, LbMaps::read_networks)
    }
    fn put_networks(&mut self, networks: &Networks) -> Result<(), MapError> {
        self.write(MapName::Networks, |maps| maps.put_networks(networks))
    }
    fn read_frontend_epoch(&self) -> Result<u32, MapError> {
        self.read(MapName::FrontendEpoch, LbMaps::read_frontend_epoch)
    }
    fn put_frontend_epoch(&mut self, epoch: u32) -> Result<(), MapError> {
        self.write(MapName::FrontendEpoch, |maps| {
            maps.put_frontend_epoch(epoch)
        })
    }
    fn read_services(&self) -> Result<Vec<(ServiceId, ServiceEntry)>, MapError> {
        self.read(MapName::Services, LbMaps::read_services)
    }
    fn put_service(&mut self, id: ServiceId, entry: &ServiceEntry) -> Result<(), MapError> {
        self.write(MapName::Services, |maps| maps.put_service(id, entry))
    }
    fn remove_service(&mut self, id: ServiceId) -> Result<(), MapError> {
        self.write(MapName::Services, |maps| maps.remove_service(id))
    }
    fn read_slots(&self, start: u32, length: u32) -> Result<Vec<SlotEntry>, MapError> {
        self.read(MapName::Slots, |maps| maps.read_slots(start, length))
    }
    fn put_slots(&mut self, start: u32, slots: &[SlotEntry]) -> Result<(), MapError> {
        self.write(MapName::Slots, |maps| maps.put_slots(start, slots))
    }
}
