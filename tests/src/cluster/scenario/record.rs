//! Maps that write down what is done to them.
use ipnet::IpNet;
use lb_common::{
    BackendEntry, BackendId, FrontendEntry, FrontendFlags, FrontendKey, Networks, ServiceEntry,
    ServiceId, SlotEntry,
};
use lb_userspace::maps::{
    Capacities, FamilyMaps, LbMaps, MapError, MapFamily, dump, fake::FakeMaps,
};

/// Fake maps and the list of writes.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) maps: FakeMaps,
    pub(super) writes: Vec<String>,
}

impl Recorded {
    pub(super) fn new(maps: FakeMaps) -> Self {
        Self {
            maps,
            writes: Vec::new(),
        }
    }
}

impl<F: MapFamily> FamilyMaps<F> for Recorded {
    fn read_frontends(&self) -> Result<Vec<(FrontendKey<F>, FrontendEntry)>, MapError> {
        self.maps.read_frontends()
    }
    fn put_frontend(
        &mut self,
        key: &FrontendKey<F>,
        entry: &FrontendEntry,
    ) -> Result<(), MapError> {
        let frontend = dump::frontend(key);
        self.writes.push(if entry.flags.has(FrontendFlags::DIRECT) {
            format!("put direct {frontend}")
        } else {
            format!("put frontend {frontend} service={}", entry.service_id)
        });
        self.maps.put_frontend(key, entry)
    }
    fn remove_frontend(&mut self, key: &FrontendKey<F>) -> Result<(), MapError> {
        self.writes
            .push(format!("remove frontend {}", dump::frontend(key)));
        FamilyMaps::<F>::remove_frontend(&mut self.maps, key)
    }
    fn read_backends(&self) -> Result<Vec<(BackendId, BackendEntry<F>)>, MapError> {
        self.maps.read_backends()
    }
    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry<F>) -> Result<(), MapError> {
        self.writes.push(format!(
            "put backend v{}/{id} {} {} service={}",
            F::VERSION,
            dump::socket_address(entry),
            dump::state(entry.state()),
            entry.service_id
        ));
        self.maps.put_backend(id, entry)
    }
    fn read_source_ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, MapError> {
        FamilyMaps::<F>::read_source_ranges(&self.maps)
    }
    fn put_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
        self.writes.push(format!("put source range {id} {range}"));
        FamilyMaps::<F>::put_source_range(&mut self.maps, id, range)
    }
    fn remove_source_range(&mut self, id: ServiceId, range: IpNet) -> Result<(), MapError> {
        self.writes
            .push(format!("remove source range {id} {range}"));
        FamilyMaps::<F>::remove_source_range(&mut self.maps, id, range)
    }
}

impl LbMaps for Recorded {
    fn capacities(&self) -> Capacities {
        self.maps.capacities()
    }
    fn read_networks(&self) -> Result<Networks, MapError> {
        self.maps.read_networks()
    }
    fn put_networks(&mut self, networks: &Networks) -> Result<(), MapError> {
        self.writes.push("put networks".to_owned());
        self.maps.put_networks(networks)
    }
    fn read_frontend_epoch(&self) -> Result<u32, MapError> {
        self.maps.read_frontend_epoch()
    }
    fn put_frontend_epoch(&mut self, epoch: u32) -> Result<(), MapError> {
        self.writes.push(format!("put frontend epoch {epoch}"));
        self.maps.put_frontend_epoch(epoch)
    }
    fn read_services(&self) -> Result<Vec<(ServiceId, ServiceEntry)>, MapError> {
        self.maps.read_services()
    }
    fn put_service(&mut self, id: ServiceId, entry: &ServiceEntry) -> Result<(), MapError> {
        let (start, length) = (entry.slots.start(), entry.slots.length());
        self.writes
            .push(format!("put service {id} slots={start}+{length}"));
        self.maps.put_service(id, entry)
    }
    fn remove_service(&mut self, id: ServiceId) -> Result<(), MapError> {
        self.writes.push(format!("remove service {id}"));
        self.maps.remove_service(id)
    }
    fn read_slots(&self, start: u32, length: u32) -> Result<Vec<SlotEntry>, MapError> {
        self.maps.read_slots(start, length)
    }
    fn put_slots(&mut self, start: u32, slots: &[SlotEntry]) -> Result<(), MapError> {
        let backends: Vec<String> = slots.iter().map(|it| it.backend_id.to_string()).collect();
        self.writes.push(format!(
            "put slots {start}+{} backends={}",
            slots.len(),
            backends.join(",")
        ));
        self.maps.put_slots(start, slots)
    }
}
