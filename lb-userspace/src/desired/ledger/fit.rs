//! Does a Service fit? Counted before anything is changed, so that a Service is served as a whole or not at all.
use ipnet::IpNet;
use lb_common::{SlotRegion, V4, V6};

use crate::{
    desired::{Addresses, DesiredService, Ledger, Refusal},
    maps::{MapFamily, MapName},
    model::Family,
};

/// For each service port: the region it moves to, or `None` if its slots stay as they are.
pub(super) type NewRegions = Vec<Option<SlotRegion>>;

impl Ledger {
    /// Whether all of this fits, and the slot regions it moves to.
    pub(super) fn fit(
        &mut self,
        wanted: &[DesiredService],
        addresses: &Addresses,
    ) -> Result<NewRegions, Refusal> {
        let new = wanted
            .iter()
            .filter(|it| !self.services.contains_key(&it.key));
        room(MapName::Services, new.count(), self.free(MapName::Services))?;
        for family in Family::ALL {
            self.fit_family(wanted, addresses, family)?;
        }
        self.new_regions(wanted)
    }

    fn fit_family(
        &self,
        wanted: &[DesiredService],
        addresses: &Addresses,
        family: Family,
    ) -> Result<(), Refusal> {
        let (frontend_map, backend_map, range_map) = match family {
            Family::V4 => (V4::FRONTENDS, V4::BACKENDS, V4::SOURCE_RANGES),
            Family::V6 => (V6::FRONTENDS, V6::BACKENDS, V6::SOURCE_RANGES),
        };
        let of_family = || wanted.iter().filter(|it| it.key.family == family);
        let new_backends = of_family().map(|it| self.new_backends(it)).sum();
        room(backend_map, new_backends, self.free(backend_map))?;

        let frontends = of_family().flat_map(|it| it.frontends.keys());
        let vacating = &self.vacating[family as usize];
        let new_frontends =
            frontends.filter(|it| self.claims.owner(it).is_none() && !vacating.contains(it));
        let new_frontends = new_frontends.count() + self.addresses.new_of(addresses, family);
        room(frontend_map, new_frontends, self.free(frontend_map))?;

        let new_ranges = of_family().map(|it| {
            let assigned = self.services.get(&it.key).map(|it| &it.source_ranges);
            let is_new = |range: &&IpNet| assigned.is_none_or(|known| !known.contains(*range));
            it.source_ranges.iter().filter(is_new).count()
        });
        room(range_map, new_ranges.sum(), self.free(range_map))
    }

    /// How many entries more a map takes; of SLOTS, in one piece.
    pub fn free(&self, map: MapName) -> usize {
        let frontends = |family: Family| {
            let taken = self.claims.count(family)
                + self.addresses.count(family)
                + self.vacating[family as usize].len();
            self.frontend_room[family as usize].saturating_sub(taken)
        };
        let ranges = |family: Family| {
            let room = self.limits.capacities.source_ranges as usize;
            let vacating = self.vacating_ranges[family as usize].len();
            room.saturating_sub(self.source_ranges[family as usize] + vacating)
        };
        match map {
            MapName::FrontendsV4 => frontends(Family::V4),
            MapName::FrontendsV6 => frontends(Family::V6),
            // Arrays of one, which always have room.
            MapName::Networks | MapName::FrontendEpoch => 1,
            MapName::Services => self.ids.free(),
            MapName::Slots => self.regions.longest(),
            MapName::BackendsV4 => self.backends[Family::V4 as usize].free(),
            MapName::BackendsV6 => self.backends[Family::V6 as usize].free(),
            MapName::SourceRangesV4 => ranges(Family::V4),
            MapName::SourceRangesV6 => ranges(Family::V6),
        }
    }

    fn new_backends(&self, wanted: &DesiredService) -> usize {
        let Some(assigned) = self.services.get(&wanted.key) else {
            return wanted.backends.len();
        };
        let backends = &self.backends[wanted.key.family as usize];
        let new = wanted
            .backends
            .iter()
            .filter(|it| backends.find(assigned.id, it).is_none());
        new.count()
    }

    /// A new region for each list of backends that changes; all or none.
    fn new_regions(&mut self, wanted: &[DesiredService]) -> Result<NewRegions, Refusal> {
        let mut regions = NewRegions::with_capacity(wanted.len());
        for service in wanted {
            if self.slots_stay(service) {
                regions.push(None);
                continue;
            }
            let needed = service.backends.len();
            let region = u32::try_from(needed)
                .ok()
                .and_then(|it| self.regions.allocate(it));
            let Some(region) = region else {
                for region in regions.into_iter().flatten() {
                    self.regions.give(region);
                }
                return Err(Refusal {
                    map: MapName::Slots,
                    needed,
                    free: self.free(MapName::Slots),
                    keeps_earlier: false,
                });
            };
            regions.push(Some(region));
        }
        Ok(regions)
    }

    /// Whether the service's slots hold exactly these backends, and all of them take new flows.
    pub(super) fn slots_stay(&self, wanted: &DesiredService) -> bool {
        let Some(assigned) = self.services.get(&wanted.key) else {
            return false;
        };
        let backends = &self.backends[wanted.key.family as usize];
        assigned.served
            && assigned.slots.len() == wanted.backends.len()
            && assigned
                .slots
                .iter()
                .zip(&wanted.backends)
                .all(|(id, wanted)| {
                    backends.is_active(*id) && backends.find(assigned.id, wanted) == Some(*id)
                })
    }
}

fn room(map: MapName, needed: usize, free: usize) -> Result<(), Refusal> {
    if needed <= free {
        return Ok(());
    }
    Err(Refusal {
        map,
        needed,
        free,
        keeps_earlier: false,
    })
}
