//! What the maps of an earlier run say about ids.
//!
//! The maps have no names. A service port takes over the id that one of its frontends leads to, and with it the backends
//! that stand there; who is not taken over before all sources have listed is removed. Which regions were resting is not
//! known any more: a process takes longer to start than a packet to pass, and a slot names its owner.
use std::collections::{BTreeMap, BTreeSet};

use lb_common::{BackendId, FrontendEntry, FrontendFlags, ServiceEntry, ServiceId, SlotRegion};

use crate::{
    desired::{DesiredService, Frontend, Ledger, Limits, claims::Claimant},
    maps::{MapContents, MapFamily},
};

use super::Assigned;

/// Services without names.
#[derive(Clone, Debug, Default)]
pub(super) struct Restored {
    frontends: BTreeMap<Frontend, FrontendEntry>,
    services: BTreeMap<ServiceId, RestoredService>,
}

#[derive(Clone, Debug, Default)]
struct RestoredService {
    region: SlotRegion,
    slots: Vec<BackendId>,
    affinity_seconds: u32,
    frontends: BTreeMap<Frontend, FrontendFlags>,
}

impl Ledger {
    /// A ledger for maps that say this.
    pub fn restore(limits: Limits, actual: &MapContents) -> Self {
        let mut ledger = Self::new(limits);
        ledger.restore_family::<lb_common::V4>(actual);
        ledger.restore_family::<lb_common::V6>(actual);
        for (id, entry) in &actual.services {
            ledger.restore_service(*id, *entry, actual);
        }
        // Ids that only frontends or backends name: nobody else may get them before those are gone.
        let frontends = ledger.restored.frontends.values().map(|it| it.service_id);
        let backends = ledger
            .backends
            .iter()
            .flat_map(|it| it.iter().map(|(_, it)| it.service_id));
        let named: BTreeSet<ServiceId> = frontends.chain(backends).collect();
        for id in named {
            if !ledger.restored.services.contains_key(&id) && ledger.ids.reserve(id) {
                ledger
                    .restored
                    .services
                    .insert(id, RestoredService::default());
            }
        }
        for (frontend, entry) in &ledger.restored.frontends {
            if let Some(service) = ledger.restored.services.get_mut(&entry.service_id) {
                service.frontends.insert(*frontend, entry.flags);
            }
        }
        ledger
    }

    fn restore_service(&mut self, id: ServiceId, entry: ServiceEntry, actual: &MapContents) {
        if !self.ids.reserve(id) {
            return;
        }
        // A region that is not one (out of range, or in use by another) is replaced with the first plan.
        let region = if self.regions.reserve(entry.slots) {
            entry.slots
        } else {
            SlotRegion::EMPTY
        };
        let indices = region.start()..region.start() + region.length();
        let slots = indices.filter_map(|index| actual.slots.get(&index));
        let slots = slots.map(|slot| slot.backend_id).collect();
        self.restored.services.insert(
            id,
            RestoredService {
                region,
                slots,
                affinity_seconds: entry.affinity_seconds,
                frontends: BTreeMap::new(),
            },
        );
    }

    fn restore_family<F: MapFamily>(&mut self, actual: &MapContents) {
        let contents = F::of(actual);
        for (id, entry) in &contents.backends {
            self.backends[F::FAMILY as usize].restore(*id, entry);
        }
        for (key, entry) in &contents.frontends {
            if let Some(frontend) = Frontend::from_key(key)
                && !entry.flags.has(FrontendFlags::DIRECT)
            {
                self.restored.frontends.insert(frontend, *entry);
                self.vacating[F::FAMILY as usize].insert(frontend);
            }
        }
    }

    /// Services that have no id take over the one their frontends lead to.
    pub(super) fn adopt(&mut self, wanted: &[DesiredService]) {
        if self.restored.services.is_empty() {
            return;
        }
        for service in wanted {
            if self.services.contains_key(&service.key) {
                continue;
            }
            let ids = service
                .frontends
                .keys()
                .filter_map(|it| self.restored.frontends.get(it));
            let Some(id) = ids
                .map(|it| it.service_id)
                .find(|id| self.restored.services.contains_key(id))
            else {
                continue;
            };
            let Some(restored) = self.restored.services.remove(&id) else {
                continue;
            };
            let claimant = Claimant {
                created: service.created,
                key: service.key.clone(),
            };
            for frontend in restored.frontends.keys() {
                self.claims.add(*frontend, claimant.clone());
                self.vacating[frontend.family() as usize].remove(frontend);
            }
            let assigned = Assigned {
                id,
                served: true,
                created: service.created,
                region: restored.region,
                slots: restored.slots,
                affinity_seconds: restored.affinity_seconds,
                source_ranges: BTreeSet::new(),
                frontends: restored.frontends,
            };
            self.services.insert(service.key.clone(), assigned);
            self.names.insert(id, service.key.clone());
        }
    }

    /// Every source has listed: what nobody has taken over is to go.
    pub fn forget_restored(&mut self) {
        let restored = std::mem::take(&mut self.restored);
        for (id, service) in restored.services {
            self.end_service(id, service.region);
        }
        for frontend in restored.frontends.keys() {
            self.touch_frontend(frontend);
        }
    }
}
