//! A Service that fits gets its ids, slots and frontends.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use lb_common::{BackendId, FrontendFlags, ServiceId, SlotRegion};

use crate::{
    desired::{DesiredService, Frontend, Ledger, ServiceKey, claims::Claimant},
    model::{Created, Family, ServiceName},
};

use super::{Assigned, fit::NewRegions};

impl Ledger {
    /// `wanted` fits, and `regions` are its new regions.
    pub(super) fn carry_out(
        &mut self,
        name: &ServiceName,
        wanted: &[DesiredService],
        regions: &NewRegions,
        now: Duration,
    ) {
        for key in self.keys_of(name) {
            if wanted.iter().any(|it| it.key == key) {
                continue;
            }
            self.retire_service(&key);
            let sibling = key.sibling();
            let sibling = wanted.iter().find(|it| it.key == sibling);
            self.observe(&key, sibling, now);
        }
        for (wanted, region) in wanted.iter().zip(regions) {
            let Some(id) = self.id_of(&wanted.key) else {
                continue;
            };
            let slots = self.set_backends(id, wanted, now);
            if let Some(region) = *region {
                self.move_to(&wanted.key, region, slots);
            }
            self.set_affinity(&wanted.key, wanted.affinity_seconds);
            self.set_source_ranges(&wanted.key, &wanted.source_ranges);
            self.set_frontends(&wanted.key, wanted.created, &wanted.frontends);
        }
    }

    /// What of `wanted` was served before and still is wanted goes on being served; true if anything is left of it.
    pub(super) fn keep_earlier(
        &mut self,
        name: &ServiceName,
        mut wanted: Vec<DesiredService>,
        now: Duration,
    ) -> bool {
        wanted.retain(|it| {
            self.services
                .get(&it.key)
                .is_some_and(|assigned| assigned.served)
        });
        for service in &mut wanted {
            let Some(assigned) = self.services.get(&service.key) else {
                continue;
            };
            let backends = &self.backends[service.key.family as usize];
            service
                .frontends
                .retain(|it, _| assigned.frontends.contains_key(it));
            // Who could come before and may come now.
            let ranges = &assigned.source_ranges;
            service.source_ranges.retain(|it| ranges.contains(it));
            service.backends.retain(|it| {
                let id = backends.find(assigned.id, it);
                id.is_some_and(|id| backends.is_active(id))
            });
        }
        wanted.retain(|it| !it.frontends.is_empty());
        let regions = wanted.iter().map(|it| self.region_for_fewer(it)).collect();
        self.carry_out(name, &wanted, &regions, now);
        !wanted.is_empty()
    }

    /// A region for a list that has only lost backends: a new one, or for want of room the beginning of the old one.
    /// There each slot is overwritten by itself, so a packet meets one member or another.
    fn region_for_fewer(&mut self, wanted: &DesiredService) -> Option<SlotRegion> {
        if self.slots_stay(wanted) {
            return None;
        }
        let length = u32::try_from(wanted.backends.len()).ok()?;
        let fresh = self.regions.allocate(length);
        fresh.or_else(|| {
            let old = self.services.get(&wanted.key)?.region;
            Some(SlotRegion::new(old.start(), length.min(old.length())))
        })
    }

    fn id_of(&mut self, key: &ServiceKey) -> Option<ServiceId> {
        if let Some(assigned) = self.services.get_mut(key) {
            if !assigned.served {
                assigned.served = true;
                self.ending.remove(&assigned.id);
                self.idle.remove(&assigned.id);
                self.touched.services.insert(assigned.id);
                for backends in &mut self.backends {
                    backends.touch_service(assigned.id);
                }
            }
            return Some(assigned.id);
        }
        let id = self.ids.allocate()?;
        let assigned = Assigned {
            id,
            served: true,
            created: Created::Unknown,
            region: SlotRegion::EMPTY,
            slots: Vec::new(),
            affinity_seconds: 0,
            source_ranges: BTreeSet::new(),
            frontends: BTreeMap::new(),
        };
        self.services.insert(key.clone(), assigned);
        self.names.insert(id, key.clone());
        self.touched.services.insert(id);
        self.touched.services.extend(self.sibling(key));
        Some(id)
    }

    /// The wanted backends take new flows, all others of the service none.
    fn set_backends(
        &mut self,
        service: ServiceId,
        wanted: &DesiredService,
        now: Duration,
    ) -> Vec<BackendId> {
        let backends = self.backends_of(wanted.key.family);
        let activate = |it| backends.activate(service, it);
        let slots: Vec<BackendId> = wanted.backends.iter().filter_map(activate).collect();
        let members: BTreeSet<BackendId> = slots.iter().copied().collect();
        let all: Vec<BackendId> = backends.of_service(service).collect();
        for id in all.into_iter().filter(|id| !members.contains(id)) {
            backends.retire(id);
        }
        self.observe(&wanted.key, Some(wanted), now);
        slots
    }

    /// Notes what the slices say about the backends of a service that take no new flows. `wanted` is the service, or the
    /// same service port for the clients of the other policy; `None`: the service port is no more.
    fn observe(&mut self, key: &ServiceKey, wanted: Option<&DesiredService>, now: Duration) {
        let gone_at = now + self.limits.gone_grace;
        let Some(service) = self.services.get(key).map(|it| it.id) else {
            return;
        };
        let backends = self.backends_of(key.family);
        let all: Vec<BackendId> = backends.of_service(service).collect();
        for id in all {
            match wanted {
                Some(wanted) => backends.observe(id, wanted, gone_at),
                None => backends.leave(id),
            }
        }
    }

    fn move_to(&mut self, key: &ServiceKey, region: SlotRegion, slots: Vec<BackendId>) {
        let Some(assigned) = self.services.get_mut(key) else {
            return;
        };
        let old = std::mem::replace(&mut assigned.region, region);
        assigned.slots = slots;
        self.touched.services.insert(assigned.id);
        let left = if old.start() == region.start() && region.length() <= old.length() {
            let tail = old.length() - region.length();
            SlotRegion::new(old.start() + region.length(), tail)
        } else {
            old
        };
        self.regions.retire(assigned.id, left);
    }

    fn set_affinity(&mut self, key: &ServiceKey, seconds: u32) {
        let Some(assigned) = self.services.get_mut(key) else {
            return;
        };
        if assigned.affinity_seconds != seconds {
            assigned.affinity_seconds = seconds;
            self.touched.services.insert(assigned.id);
        }
    }

    fn set_source_ranges(&mut self, key: &ServiceKey, wanted: &BTreeSet<IpNet>) {
        let Some(assigned) = self.services.get_mut(key) else {
            return;
        };
        if assigned.source_ranges == *wanted {
            return;
        }
        let id = assigned.id;
        let old = std::mem::replace(&mut assigned.source_ranges, wanted.clone());
        let count = &mut self.source_ranges[key.family as usize];
        *count = *count + wanted.len() - old.len();
        let vacating = &mut self.vacating_ranges[key.family as usize];
        vacating.extend(old.difference(wanted).map(|range| (id, *range)));
        vacating.retain(|(of, range)| *of != id || !wanted.contains(range));
        let touched = match key.family {
            Family::V4 => &mut self.touched.v4.source_ranges,
            Family::V6 => &mut self.touched.v6.source_ranges,
        };
        touched.extend(old.iter().chain(wanted).map(|range| (id, *range)));
    }

    fn set_frontends(
        &mut self,
        key: &ServiceKey,
        created: Created,
        wanted: &BTreeMap<Frontend, FrontendFlags>,
    ) {
        let Some(assigned) = self.services.get_mut(key) else {
            return;
        };
        let claimant = |created| Claimant {
            created,
            key: key.clone(),
        };
        let before = claimant(std::mem::replace(&mut assigned.created, created));
        let now = claimant(created);
        let id = assigned.id;
        let old = std::mem::replace(&mut assigned.frontends, wanted.clone());
        if (old.len() > 1) != (wanted.len() > 1) {
            // The flags of its backends' own addresses depend on it.
            self.backends[key.family as usize].touch_service(id);
        }
        for frontend in old.keys() {
            if before == now && wanted.contains_key(frontend) {
                continue;
            }
            self.claims.remove(*frontend, &before);
            if self.claims.owner(frontend).is_none() {
                self.vacating[frontend.family() as usize].insert(*frontend);
            }
            self.touch_frontend(frontend);
        }
        for (frontend, flags) in wanted {
            if before == now && old.get(frontend) == Some(flags) {
                continue;
            }
            self.claims.add(*frontend, now.clone());
            self.vacating[frontend.family() as usize].remove(frontend);
            self.touch_frontend(frontend);
        }
    }

    fn retire_service(&mut self, key: &ServiceKey) {
        self.set_frontends(key, Created::Unknown, &BTreeMap::new());
        self.set_source_ranges(key, &BTreeSet::new());
        let Some(assigned) = self.services.get_mut(key) else {
            return;
        };
        if !assigned.served {
            return;
        }
        assigned.served = false;
        assigned.slots.clear();
        let id = assigned.id;
        let region = std::mem::take(&mut assigned.region);
        self.end_service(id, region);
    }

    /// A service id whose entry is to go from the map.
    pub(super) fn end_service(&mut self, id: ServiceId, region: SlotRegion) {
        self.regions.retire(id, region);
        self.ending.insert(id);
        self.touched.services.insert(id);
        for backends in &mut self.backends {
            let all: Vec<BackendId> = backends.of_service(id).collect();
            for backend in all {
                backends.retire(backend);
                backends.leave(backend);
            }
            backends.touch_service(id);
        }
    }
}
