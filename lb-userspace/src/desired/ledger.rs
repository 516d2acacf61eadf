//! Who has which ids, slots and frontends: the only memory of the way from the model to the maps.
//!
//! A Service is taken as a whole or not at all. First it is seen whether it fits ([`fit`]), without any change; then it
//! is carried out ([`carry_out`]), which cannot fail. What has to be written follows from what was touched
//! ([`contents`]). What is no longer wanted rests: slot regions for a time, backend ids until no flow refers to them,
//! service ids until both is over.
mod carry_out;
mod contents;
mod fit;
mod restore;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use lb_common::{BackendId, FrontendFlags, FrontendKey, ServiceId, SlotRegion, V4, V6};

pub use contents::{FamilyScope, Scope};
pub use show::{Dispute, RestingBackend, Shown};

use crate::{
    desired::{
        Addresses, Backend, DesiredService, Frontend, Refusal, ServiceKey, addresses::Holders,
        backends::Backends, claims::Claims, ids::Ids, regions::Regions,
    },
    maps::{Capacities, MapContents, MapFamily},
    model::{Created, Family, ServiceName},
};

/// What the ledger has to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How much fits into the maps.
    pub capacities: Capacities,
    /// How long a region rests after the last service has stopped naming it.
    pub region_rest: Duration,
    /// How long after a terminating endpoint has left all slices its pod counts as gone.
    pub gone_grace: Duration,
}

/// What is assigned to a service port of one family.
#[derive(Clone, Debug)]
struct Assigned {
    id: ServiceId,
    /// False once it is retired: the id rests.
    served: bool,
    created: Created,
    region: SlotRegion,
    /// The backends in its slots.
    slots: Vec<BackendId>,
    affinity_seconds: u32,
    source_ranges: BTreeSet<IpNet>,
    frontends: BTreeMap<Frontend, FrontendFlags>,
}

/// Who has what.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: Limits,
    /// How many frontends of each family the maps take; lower than the capacity if a map was full before.
    frontend_room: [usize; 2],
    ids: Ids,
    regions: Regions,
    backends: [Backends; 2],
    claims: Claims,
    /// Addresses whose other ports are refused, or left to others.
    addresses: Holders,
    /// How many source ranges of each family are assigned.
    source_ranges: [usize; 2],
    /// Source ranges that nobody wants and that may still be in the maps.
    vacating_ranges: [BTreeSet<(ServiceId, IpNet)>; 2],
    /// Frontends that nobody claims and that may still be in the maps.
    vacating: [BTreeSet<Frontend>; 2],
    /// Backends' own addresses that FRONTENDS had no room for.
    untracked: BTreeSet<Frontend>,
    services: BTreeMap<ServiceKey, Assigned>,
    names: BTreeMap<ServiceId, ServiceKey>,
    /// Found in the maps at the start and not yet claimed by a service of that name.
    restored: restore::Restored,
    /// Retired, but their entries may still be in the map.
    ending: BTreeSet<ServiceId>,
    /// Retired, and out of the map since this moment.
    idle: BTreeMap<ServiceId, Duration>,
    touched: Scope,
    /// Something has become free since somebody last asked.
    freed: bool,
}

impl Ledger {
    /// A ledger for empty maps.
    pub fn new(limits: Limits) -> Self {
        let capacities = limits.capacities;
        Self {
            limits,
            frontend_room: [capacities.frontends as usize; 2],
            ids: Ids::new(capacities.services),
            regions: Regions::new(capacities.slots, limits.region_rest),
            backends: [(); 2].map(|()| Backends::new(capacities.backends)),
            claims: Claims::default(),
            addresses: Holders::default(),
            source_ranges: [0; 2],
            vacating_ranges: [const { BTreeSet::new() }; 2],
            vacating: [const { BTreeSet::new() }; 2],
            untracked: BTreeSet::new(),
            services: BTreeMap::new(),
            names: BTreeMap::new(),
            restored: restore::Restored::default(),
            ending: BTreeSet::new(),
            idle: BTreeMap::new(),
            touched: Scope::default(),
            freed: false,
        }
    }

    /// A Service as it is to be, with its addresses; empty if it is no more.
    ///
    /// # Errors
    /// If it does not fit. A Service that is new is then not served at all. One that was served keeps the state that
    /// fitted, without the endpoints that have left it since: what it has never had it does not get.
    pub fn update(
        &mut self,
        name: &ServiceName,
        wanted: Vec<DesiredService>,
        addresses: &Addresses,
        now: Duration,
    ) -> Result<(), Refusal> {
        self.adopt(&wanted);
        match self.fit(&wanted, addresses) {
            Ok(regions) => {
                self.carry_out(name, &wanted, &regions, now);
                self.set_addresses(Some(name), addresses);
                Ok(())
            }
            Err(mut refusal) => {
                refusal.keeps_earlier = self.keep_earlier(name, wanted, now);
                Err(refusal)
            }
        }
    }

    /// What becomes of packets to these addresses that are for none of their ports; `None` is the node.
    pub fn set_addresses(&mut self, holder: Option<&ServiceName>, addresses: &Addresses) {
        for address in self.addresses.set(holder, addresses) {
            if let Some(address) = V4::address(address) {
                let key = FrontendKey::any_port(address);
                self.touched.v4.frontends.insert(key);
            }
            if let Some(address) = V6::address(address) {
                let key = FrontendKey::any_port(address);
                self.touched.v6.frontends.insert(key);
            }
        }
    }

    /// The lowest and the highest of these addresses of a family.
    pub fn lowest_and_highest(&self, family: Family) -> Option<(IpAddr, IpAddr)> {
        let mut addresses = self.addresses.of_family(family);
        let lowest = addresses.next()?;
        Some((lowest, addresses.next_back().unwrap_or(lowest)))
    }

    /// The map of a family was full when it held so many frontends: no more are planned.
    pub fn learn_frontend_room(&mut self, family: Family, room: usize) {
        self.frontend_room[family as usize] = room;
    }

    /// FRONTENDS has no room for a backend's own address: direct connections to it are not tracked.
    pub fn leave_untracked(&mut self, frontend: Frontend) {
        self.untracked.insert(frontend);
    }

    /// Forgets what was learned: it is tried once more.
    pub fn forget_frontend_room(&mut self) {
        self.untracked.clear();
        self.frontend_room = [self.limits.capacities.frontends as usize; 2];
    }

    /// Drops those ports of a Service that have frontends which are not in the map: the map was full. Returns whether
    /// any of it is left.
    pub fn drop_unwritten(
        &mut self,
        name: &ServiceName,
        wanted: Vec<DesiredService>,
        actual: &MapContents,
        now: Duration,
    ) -> bool {
        let written = wanted.into_iter().filter(|service| {
            let mut frontends = service.frontends.keys();
            frontends.all(|frontend| frontend.is_in(actual))
        });
        let written = written.collect();
        self.keep_earlier(name, written, now)
    }

    /// The maps say `actual`: what they name no more begins to rest.
    pub fn settle(&mut self, actual: &MapContents, now: Duration) {
        let region_of = |id| {
            actual
                .services
                .get(&id)
                .map_or(SlotRegion::EMPTY, |entry| entry.slots)
        };
        self.regions.settle(now, region_of);
        for vacating in &mut self.vacating {
            let before = vacating.len();
            vacating.retain(|frontend| frontend.is_in(actual));
            self.freed |= vacating.len() < before;
        }
        let [v4, v6] = &mut self.vacating_ranges;
        let before = v4.len() + v6.len();
        v4.retain(|range| actual.v4.source_ranges.contains(range));
        v6.retain(|range| actual.v6.source_ranges.contains(range));
        self.freed |= v4.len() + v6.len() < before;
        let idle = &mut self.idle;
        self.ending.retain(|id| {
            let in_map = actual.services.contains_key(id);
            if !in_map {
                idle.insert(*id, now);
            }
            in_map
        });
    }

    /// What was waiting for a moment that has come happens.
    pub fn wake(&mut self, now: Duration) {
        self.freed |= self.regions.wake(now);
        for backends in &mut self.backends {
            backends.wake(now);
        }
        let rest = self.limits.region_rest;
        let rested = self.idle.iter().filter(|(_, since)| **since + rest <= now);
        let rested: Vec<ServiceId> = rested.map(|(id, _)| *id).collect();
        for id in rested {
            if self
                .backends
                .iter()
                .any(|it| it.of_service(id).next().is_some())
            {
                continue;
            }
            self.idle.remove(&id);
            if let Some(key) = self.names.remove(&id) {
                self.services.remove(&key);
                self.touched.services.extend(self.sibling(&key));
            }
            self.ids.release(id);
            self.freed = true;
        }
    }

    /// When [`Ledger::wake`] has something to do; backends that wait for a sweep do not count.
    pub fn wake_at(&self) -> Option<Duration> {
        let backends = self.backends.iter().filter_map(Backends::wake_at);
        backends.chain(self.regions.wake_at()).min()
    }

    /// The pods with these uids are no more, whatever the slices say.
    pub fn vanished(&mut self, uids: &BTreeSet<String>, now: Duration) {
        for backends in &mut self.backends {
            backends.vanished(uids, now + self.limits.gone_grace);
        }
    }

    /// A sweep that began after these backends had left found no flow that refers to them.
    pub fn release(&mut self, unreferenced: &[RestingBackend]) {
        for resting in unreferenced {
            // Marks its own address as well, as long as it is known.
            self.touch_direct(resting.family, [resting.id]);
            let backends = &mut self.backends[resting.family as usize];
            self.freed |= backends.release(resting.id, resting.retirement).is_some();
        }
    }

    /// Whether something has become free since the last call.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// Whether something has to be compared with the maps.
    pub fn is_touched(&self) -> bool {
        !self.touched.is_empty() || self.backends.iter().any(|it| !it.touched.is_empty())
    }

    /// What has to be compared with the maps since the last call.
    pub fn take_touched(&mut self) -> Scope {
        for family in Family::ALL {
            let ids = self.backends[family as usize].touched.clone();
            self.touch_direct(family, ids);
        }
        let mut touched = std::mem::take(&mut self.touched);
        let [v4, v6] = &mut self.backends;
        touched.v4.backends = std::mem::take(&mut v4.touched);
        touched.v6.backends = std::mem::take(&mut v6.touched);
        touched
    }

    /// A backend that is not free.
    pub fn backend(&self, family: Family, id: BackendId) -> Option<&Backend> {
        self.backends[family as usize].get(id)
    }

    /// The id of the same service port for the clients of the other traffic policy, which may rest.
    fn sibling(&self, key: &ServiceKey) -> Option<ServiceId> {
        self.services.get(&key.sibling()).map(|it| it.id)
    }

    /// Who has the frontend.
    pub fn owner(&self, frontend: &Frontend) -> Option<&ServiceKey> {
        self.claims.owner(frontend)
    }

    /// Whether other Services dispute other frontends than when somebody last asked.
    pub fn take_disputes_news(&mut self) -> bool {
        self.claims.take_news()
    }

    fn keys_of(&self, name: &ServiceName) -> Vec<ServiceKey> {
        let first = ServiceKey::first_of(name);
        let range = self.services.range(first..);
        let keys = range.map(|(key, _)| key);
        keys.take_while(|key| key.port.service == *name)
            .cloned()
            .collect()
    }

    fn backends_of(&mut self, family: Family) -> &mut Backends {
        &mut self.backends[family as usize]
    }

    /// The entries for these backends' own addresses have to be compared with the maps.
    fn touch_direct(&mut self, family: Family, ids: impl IntoIterator<Item = BackendId>) {
        for id in ids {
            let Some(backend) = self.backends[family as usize].get(id) else {
                continue;
            };
            let (v4, v6) = (self.direct_key(backend), self.direct_key(backend));
            self.touched.v4.frontends.extend(v4);
            self.touched.v6.frontends.extend(v6);
        }
    }

    fn touch_frontend(&mut self, frontend: &Frontend) {
        if let Some(key) = frontend.key::<V4>() {
            self.touched.v4.frontends.insert(key);
        }
        if let Some(key) = frontend.key::<V6>() {
            self.touched.v6.frontends.insert(key);
        }
    }
}
