//! Carries a plan out.
use crate::{
    maps::{FamilyMaps, LbMaps, MapContents, MapError, MapFamily},
    reconcile::plan::{Change, FamilyChange},
};

/// Where a plan stopped, and why. What came before is done; what comes after is not begun.
#[derive(Debug)]
pub struct Stopped {
    /// Index of the change that failed.
    pub at: usize,
    /// Why.
    pub error: MapError,
}

/// Makes the changes one after the other and notes each in `actual`, up to the first that fails.
///
/// # Errors
/// If a change fails. There is no undo: after every prefix of a plan the maps are fit for use.
pub fn apply<M: LbMaps>(
    plan: &[Change],
    maps: &mut M,
    actual: &mut MapContents,
) -> Result<(), Stopped> {
    for (at, change) in plan.iter().enumerate() {
        write(change, maps).map_err(|error| Stopped { at, error })?;
        note(change, actual);
    }
    Ok(())
}

fn write<M: LbMaps>(change: &Change, maps: &mut M) -> Result<(), MapError> {
    match change {
        Change::V4(change) => write_family(change, maps),
        Change::V6(change) => write_family(change, maps),
        Change::PutNetworks(networks) => maps.put_networks(networks),
        Change::PutFrontendEpoch(epoch) => maps.put_frontend_epoch(*epoch),
        Change::PutSlots(start, slots) => maps.put_slots(*start, slots),
        Change::PutService(id, entry) => maps.put_service(*id, entry),
        Change::RemoveService(id) => maps.remove_service(*id),
    }
}

fn write_family<F: MapFamily, M: FamilyMaps<F>>(
    change: &FamilyChange<F>,
    maps: &mut M,
) -> Result<(), MapError> {
    match change {
        FamilyChange::PutBackend(id, entry) | FamilyChange::RetireBackend(id, entry) => {
            maps.put_backend(*id, entry)
        }
        FamilyChange::PutFrontend(key, entry) => maps.put_frontend(key, entry),
        FamilyChange::RemoveFrontend(key) => maps.remove_frontend(key),
        FamilyChange::PutSourceRange(id, range) => maps.put_source_range(*id, *range),
        FamilyChange::RemoveSourceRange(id, range) => maps.remove_source_range(*id, *range),
    }
}

/// What the maps say after a change.
pub fn note(change: &Change, actual: &mut MapContents) {
    actual.frontends_moved |= change.moves_frontend(actual);
    match change {
        Change::V4(change) => note_family(change, actual),
        Change::V6(change) => note_family(change, actual),
        Change::PutNetworks(networks) => actual.networks = *networks,
        Change::PutFrontendEpoch(epoch) => {
            (actual.frontend_epoch, actual.frontends_moved) = (*epoch, false);
        }
        Change::PutSlots(start, slots) => {
            actual.slots.extend((*start..).zip(slots.iter().copied()));
        }
        Change::PutService(id, entry) => {
            actual.services.insert(*id, *entry);
        }
        Change::RemoveService(id) => {
            actual.services.remove(id);
        }
    }
}

fn note_family<F: MapFamily>(change: &FamilyChange<F>, actual: &mut MapContents) {
    let contents = F::of_mut(actual);
    match change {
        FamilyChange::PutBackend(id, entry) | FamilyChange::RetireBackend(id, entry) => {
            contents.backends.insert(*id, *entry);
        }
        FamilyChange::PutFrontend(key, entry) => {
            contents.frontends.insert(*key, *entry);
        }
        FamilyChange::RemoveFrontend(key) => {
            contents.frontends.remove(key);
        }
        FamilyChange::PutSourceRange(id, range) => {
            contents.source_ranges.insert((*id, *range));
        }
        FamilyChange::RemoveSourceRange(id, range) => {
            contents.source_ranges.remove(&(*id, *range));
        }
    }
}
