//! The difference of two contents as an ordered list of changes.
//!
//! **The order is what makes it safe.** After every prefix of a plan, each frontend leads to a service that has its entry,
//! each slot of the region that the entry names leads to a backend that takes traffic, and a frontend that exists
//! before and after exists all the time, even if it goes from one service to another. One that has backends before and
//! after has some all the time. So first everything that is new is built where nobody looks, then services and frontends
//! are switched, each in one write, and only then goes what nobody needs any more: services that lose their last backend
//! are switched after the frontends, some of which may have left them for another. That frontends have changed hands is
//! said after they have, and before backends stop serving.
use ipnet::IpNet;
use lb_common::{
    BackendEntry, BackendId, BackendState, FamilyNetworks, FrontendEntry, FrontendKey, IpFamily,
    Networks, Prefix, ServiceEntry, ServiceId, SlotEntry, SlotRegion, V4, V6,
};

use crate::{
    desired::{FamilyScope, Scope},
    maps::{MapContents, MapFamily, dump::is_any_port},
};

/// One change of the maps of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyChange<F: IpFamily> {
    /// A backend takes traffic. Where somebody else had the id before, nothing refers to it.
    PutBackend(BackendId, BackendEntry<F>),
    /// A frontend leads to a service, no matter where it led before.
    PutFrontend(FrontendKey<F>, FrontendEntry),
    /// A frontend is no more.
    RemoveFrontend(FrontendKey<F>),
    /// Clients within a prefix may dial a service's load balancer.
    PutSourceRange(ServiceId, IpNet),
    /// They may no more.
    RemoveSourceRange(ServiceId, IpNet),
    /// A backend takes no new flows: nothing but its state changes. Or its id is free: nothing refers to it.
    RetireBackend(BackendId, BackendEntry<F>),
}

/// One change of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Of the IPv4 maps.
    V4(FamilyChange<V4>),
    /// Of the IPv6 maps.
    V6(FamilyChange<V6>),
    /// Where pods and Services have their addresses.
    PutNetworks(Networks),
    /// Frontends were given to other services, or removed: UDP flows look theirs up once more.
    PutFrontendEpoch(u32),
    /// Slots from an index on. No service names them yet, or each of them is good by itself.
    PutSlots(u32, Vec<SlotEntry>),
    /// A service is switched to its region.
    PutService(ServiceId, ServiceEntry),
    /// A service is no more.
    RemoveService(ServiceId),
}

/// What leads from `actual` to `desired`, for the keys in `scope` only, and always for the networks. A key of the scope
/// that `desired` lacks is removed; backends are never removed, their state says `Free`.
pub fn plan(actual: &MapContents, desired: &MapContents, scope: &Scope) -> Vec<Change> {
    let v4 = FamilyPlan::new(actual, desired, &scope.v4);
    let v6 = FamilyPlan::new(actual, desired, &scope.v6);
    let (mut slots, mut put_services) = (Vec::new(), Vec::new());
    let (mut empty_services, mut remove_services) = (Vec::new(), Vec::new());
    for id in &scope.services {
        let old = actual.services.get(id);
        let Some(new) = desired.services.get(id) else {
            if old.is_some() {
                remove_services.push(Change::RemoveService(*id));
            }
            continue;
        };
        let wanted = slots_of(desired, new.slots);
        if wanted != slots_of(actual, new.slots) {
            let entries = wanted.into_iter().map(Option::unwrap_or_default).collect();
            slots.push(Change::PutSlots(new.slots.start(), entries));
        }
        match old {
            Some(old) if old == new => {}
            Some(_) if new.slots.is_empty() => {
                empty_services.push(Change::PutService(*id, *new));
            }
            _ => put_services.push(Change::PutService(*id, *new)),
        }
    }
    let as_v4 = |changes: Vec<FamilyChange<V4>>| changes.into_iter().map(Change::V4);
    let as_v6 = |changes: Vec<FamilyChange<V6>>| changes.into_iter().map(Change::V6);
    let mut changes = Vec::new();
    // What is for an address of a prefix that is new is not dropped before all who have one are known.
    let networks = without_new_prefixes(&actual.networks, &desired.networks);
    if actual.networks != networks {
        changes.push(Change::PutNetworks(networks));
    }
    // Nothing leads by the entry of an address: what is for its unknown ports may be refused a moment longer or shorter. Its
    // room is counted on.
    changes.extend(as_v4(v4.remove_addresses).chain(as_v6(v6.remove_addresses)));
    changes.extend(as_v4(v4.put_backends).chain(as_v6(v6.put_backends)));
    changes.extend(slots);
    changes.extend(put_services);
    // Who may come is known before anybody is asked for it, and as long as somebody is.
    changes.extend(as_v4(v4.put_ranges).chain(as_v6(v6.put_ranges)));
    changes.extend(as_v4(v4.put_frontends).chain(as_v6(v6.put_frontends)));
    if networks != desired.networks {
        changes.push(Change::PutNetworks(desired.networks));
    }
    changes.extend(empty_services);
    changes.extend(as_v4(v4.remove_ranges).chain(as_v6(v6.remove_ranges)));
    changes.extend(as_v4(v4.remove_frontends).chain(as_v6(v6.remove_frontends)));
    if actual.frontends_moved || changes.iter().any(|it| it.moves_frontend(actual)) {
        changes.push(Change::PutFrontendEpoch(next_epoch(actual.frontend_epoch)));
    }
    changes.extend(remove_services);
    changes.extend(as_v4(v4.retire_backends).chain(as_v6(v6.retire_backends)));
    changes
}

/// The next number of which the low 16 bits are not zero.
fn next_epoch(epoch: u32) -> u32 {
    let next = epoch.wrapping_add(1);
    if next.trailing_zeros() >= u16::BITS {
        next + 1
    } else {
        next
    }
}

impl Change {
    /// Whether it gives a frontend to another service, or removes one.
    pub(super) fn moves_frontend(&self, actual: &MapContents) -> bool {
        if let Self::V4(change) = self {
            change.moves_frontend(actual)
        } else if let Self::V6(change) = self {
            change.moves_frontend(actual)
        } else {
            false
        }
    }
}

impl<F: MapFamily> FamilyChange<F> {
    fn moves_frontend(&self, actual: &MapContents) -> bool {
        let (key, new) = if let Self::PutFrontend(key, new) = self {
            (key, new.service_id)
        } else if let Self::RemoveFrontend(key) = self {
            (key, 0)
        } else {
            return false;
        };
        let old = F::of(actual).frontends.get(key);
        old.is_some_and(|old| old.service_id != 0 && old.service_id != new)
    }
}

fn without_new_prefixes(actual: &Networks, desired: &Networks) -> Networks {
    fn of_family<F: IpFamily>(
        actual: &FamilyNetworks<F>,
        desired: &FamilyNetworks<F>,
    ) -> FamilyNetworks<F> {
        let nobody = Prefix {
            network: F::UNSPECIFIED,
            mask: F::UNSPECIFIED,
        };
        let is_known = |prefix: &Prefix<F>| actual.service_prefixes.contains(prefix);
        FamilyNetworks {
            service_prefixes: desired
                .service_prefixes
                .map(|it| if is_known(&it) { it } else { nobody }),
            ..*desired
        }
    }
    Networks {
        v6: of_family(&actual.v6, &desired.v6),
        v4: of_family(&actual.v4, &desired.v4),
    }
}

fn slots_of(contents: &MapContents, region: SlotRegion) -> Vec<Option<SlotEntry>> {
    let indices = region.start()..region.start().saturating_add(region.length());
    indices
        .map(|index| contents.slots.get(&index).copied())
        .collect()
}

struct FamilyPlan<F: IpFamily> {
    remove_addresses: Vec<FamilyChange<F>>,
    put_backends: Vec<FamilyChange<F>>,
    put_ranges: Vec<FamilyChange<F>>,
    put_frontends: Vec<FamilyChange<F>>,
    remove_ranges: Vec<FamilyChange<F>>,
    remove_frontends: Vec<FamilyChange<F>>,
    retire_backends: Vec<FamilyChange<F>>,
}

impl<F: MapFamily> FamilyPlan<F> {
    fn new(actual: &MapContents, desired: &MapContents, scope: &FamilyScope<F>) -> Self {
        let (actual, desired) = (F::of(actual), F::of(desired));
        let mut plan = Self {
            remove_addresses: Vec::new(),
            put_backends: Vec::new(),
            put_ranges: Vec::new(),
            put_frontends: Vec::new(),
            remove_ranges: Vec::new(),
            remove_frontends: Vec::new(),
            retire_backends: Vec::new(),
        };
        for id in &scope.backends {
            let Some(new) = desired.backends.get(id) else {
                continue;
            };
            if actual.backends.get(id) == Some(new) {
                continue;
            }
            if new.state() == BackendState::Active {
                plan.put_backends.push(FamilyChange::PutBackend(*id, *new));
            } else {
                plan.retire_backends
                    .push(FamilyChange::RetireBackend(*id, *new));
            }
        }
        for range in &scope.source_ranges {
            let is_there = actual.source_ranges.contains(range);
            let (id, prefix) = *range;
            match desired.source_ranges.contains(range) {
                true if !is_there => plan
                    .put_ranges
                    .push(FamilyChange::PutSourceRange(id, prefix)),
                false if is_there => plan
                    .remove_ranges
                    .push(FamilyChange::RemoveSourceRange(id, prefix)),
                _ => {}
            }
        }
        for key in &scope.frontends {
            let old = actual.frontends.get(key);
            match desired.frontends.get(key) {
                Some(new) if old == Some(new) => {}
                Some(new) => plan
                    .put_frontends
                    .push(FamilyChange::PutFrontend(*key, *new)),
                None if old.is_some() && is_any_port(key) => {
                    plan.remove_addresses
                        .push(FamilyChange::RemoveFrontend(*key));
                }
                None if old.is_some() => {
                    plan.remove_frontends
                        .push(FamilyChange::RemoveFrontend(*key));
                }
                None => {}
            }
        }
        plan
    }
}
