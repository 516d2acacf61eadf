//! One round: from the Services that changed to the maps.
use std::time::Duration;

use lb_common::BackendState;
use tracing::{info, warn};

use crate::{
    agent::{Agent, RETRY_REFUSED, Report, RestingBackend, Start},
    desired::{self, Addresses, DesiredService, Frontend, Refusal, Scope},
    maps::{LbMaps, MapContents, MapError, MapFamily, read_contents},
    model::{Family, ServiceName},
    reconcile::{Change, FamilyChange, Stopped, apply, plan},
};

impl<M: LbMaps> Agent<M> {
    /// When [`Agent::reconcile`] has something to do, if nothing else happens.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.awaited().next().is_some() {
            return (!self.complained).then_some(self.settings.list_timeout);
        }
        let collected = self
            .last
            .as_ref()
            .map_or(Duration::ZERO, |(_, end)| *end + self.settings.collect);
        let work = self.has_work().then_some(collected);
        let moments = [work, self.ledger.wake_at(), self.retry_refused];
        let next = moments.into_iter().flatten().min()?;
        Some(next.max(self.backoff.until().unwrap_or_default()))
    }

    pub(super) fn has_work(&self) -> bool {
        let to_look_at = !self.dirty.is_empty() || !self.pending.is_empty();
        let networks = desired::networks(self.snapshot.place(), &self.ledger);
        let to_write = networks != self.actual.networks;
        self.start == Start::NotYet
            || self.doubtful
            || to_look_at
            || self.ledger.is_touched()
            || to_write
    }

    /// Brings the maps to what is wanted, if it is time to. `clock` tells the time since the agent's start.
    pub fn reconcile(&mut self, clock: &dyn Fn() -> Duration) -> Option<Report> {
        let start = clock();
        if self.wake_at().is_none_or(|moment| moment > start) {
            return None;
        }
        if self.awaited().next().is_some() {
            self.complain();
            return None;
        }
        self.ledger.wake(start);
        self.retry_refused(start);
        let mut report = Report::default();
        match self.round(&mut report, clock) {
            Ok(()) => self.backoff.succeeded(),
            Err(error) => {
                self.doubtful = true;
                self.backoff.failed(clock());
                warn!(%error, changes = report.changes, "the maps are behind; they are read again and the changes repeated");
                report.error = Some(error.to_string());
            }
        }
        self.tell_of_node();
        let end = clock();
        self.ledger.settle(&self.actual, end);
        self.note_freed(end);
        if report.error.is_none() {
            self.tell_of_success(end);
        }
        report.duration = end.saturating_sub(start);
        // The first plan is told of even if it had nothing to do.
        let idle = report.changes == 0 && report.error.is_none();
        if idle && self.last.is_some() {
            return None;
        }
        if report.error.is_none() {
            info!(changes = report.changes, duration = ?report.duration, "maps are up to date");
        }
        self.last = Some((report.clone(), end));
        Some(report)
    }

    /// Plans and applies until nothing is left to do or an error stops it.
    fn round(&mut self, report: &mut Report, clock: &dyn Fn() -> Duration) -> Result<(), MapError> {
        if self.doubtful {
            self.actual = read_contents(&self.maps)?;
            self.doubtful = false;
            if self.start != Start::InPart {
                self.pending.extend(Scope::of(&self.actual));
            }
            self.pending.extend(self.ledger.everything());
        }
        self.update_ledger(clock());
        loop {
            self.pending.extend(self.ledger.take_touched());
            let desired = MapContents {
                networks: desired::networks(self.snapshot.place(), &self.ledger),
                ..self.ledger.contents(&self.pending)
            };
            let changes = plan(&self.actual, &desired, &self.pending);
            let result = apply(&changes, &mut self.maps, &mut self.actual);
            let done = result
                .as_ref()
                .map_or_else(|stopped| stopped.at, |()| changes.len());
            report.changes += done;
            report.retired.extend(
                changes
                    .iter()
                    .take(done)
                    .filter_map(|it| self.retired_by(it)),
            );
            let Err(Stopped { at, error }) = result else {
                self.pending = Scope::default();
                return Ok(());
            };
            match (frontend_of(changes.get(at)), &error) {
                (Some(frontend), MapError::Full { .. }) => self.make_room(&frontend, clock())?,
                _ => return Err(error),
            }
        }
    }

    /// The Services that changed get what they need, or are refused.
    fn update_ledger(&mut self, now: Duration) {
        let begins = self.start == Start::NotYet;
        if begins {
            self.dirty
                .extend(self.snapshot.services().map(|service| service.name.clone()));
        }
        for name in std::mem::take(&mut self.dirty) {
            self.note_check(&name);
            self.note_node_ports(&name);
            let wanted = self.wanted(&name);
            let place = self.snapshot.place();
            let service = self.snapshot.service(&name);
            let addresses = service.map_or_else(Addresses::new, |it| desired::addresses(it, place));
            match self.ledger.update(&name, wanted, &addresses, now) {
                Ok(()) => {
                    if self.refused.remove(&name).is_some() {
                        self.file(&name);
                    }
                }
                Err(refusal) => self.refuse(&name, refusal),
            }
        }
        if self.ledger.take_disputes_news() {
            self.set_disputes(self.ledger.disputes().into_iter().collect());
        }
        if begins {
            self.start = if self.sources.values().any(|source| source.is_partial) {
                Start::InPart
            } else {
                self.ledger.forget_restored();
                self.pending.extend(Scope::of(&self.actual));
                Start::Whole
            };
            self.pending.extend(self.ledger.everything());
        }
    }

    /// What a Service should be, by names and addresses.
    pub(super) fn wanted(&self, name: &ServiceName) -> Vec<DesiredService> {
        match self.snapshot.service(name) {
            Some(service) => {
                let slices: Vec<_> = self.snapshot.slices_of(name).collect();
                desired::services(service, &slices, self.snapshot.place())
            }
            None => Vec::new(),
        }
    }

    fn refuse(&mut self, name: &ServiceName, refusal: Refusal) {
        if self.refused.get(name) != Some(&refusal) {
            warn!("{}", refusal.warning(name));
            self.refused.insert(name.clone(), refusal);
            self.file(name);
        }
    }

    /// Those for whom there may be room now are tried again.
    fn retry_refused(&mut self, now: Duration) {
        if self.retry_refused.is_some_and(|moment| moment <= now) {
            self.retry_refused = None;
            self.ledger.forget_frontend_room();
            let hopeful: Vec<ServiceName> = self.hopeful().cloned().collect();
            self.dirty.extend(hopeful);
        }
    }

    /// Something has become free: if it is enough for somebody who was refused, there will be another try.
    fn note_freed(&mut self, now: Duration) {
        if self.ledger.take_freed() && self.hopeful().next().is_some() {
            let soon = now + RETRY_REFUSED;
            self.retry_refused = Some(self.retry_refused.map_or(soon, |moment| moment.min(soon)));
        }
    }

    /// Refused Services that would find room for what they lacked. To look at one with 70,000 endpoints takes its time:
    /// that is not done in vain.
    fn hopeful(&self) -> impl Iterator<Item = &ServiceName> {
        let refused = self.refused.iter();
        let hopeful = refused.filter(|(_, it)| self.ledger.free(it.map) >= it.needed);
        hopeful.map(|(name, _)| name)
    }

    /// The map of frontends is full, though it should not be: the Service that did not get in is refused, others go on.
    fn make_room(&mut self, frontend: &Frontend, now: Duration) -> Result<(), MapError> {
        self.actual = read_contents(&self.maps)?;
        let (family, held) = match frontend.family() {
            Family::V4 => (Family::V4, self.actual.v4.frontends.len()),
            Family::V6 => (Family::V6, self.actual.v6.frontends.len()),
        };
        self.ledger.learn_frontend_room(family, held);
        let Some(name) = self
            .ledger
            .owner(frontend)
            .map(|key| key.port.service.clone())
        else {
            return Ok(());
        };
        let wanted = self.wanted(&name);
        let keeps_earlier = self.ledger.drop_unwritten(&name, wanted, &self.actual, now);
        let map = match family {
            Family::V4 => lb_common::V4::FRONTENDS,
            Family::V6 => lb_common::V6::FRONTENDS,
        };
        self.refuse(
            &name,
            Refusal {
                map,
                needed: 1,
                free: 0,
                keeps_earlier,
            },
        );
        let retry = now + self.settings.backoff.1;
        self.retry_refused.get_or_insert(retry);
        Ok(())
    }

    fn complain(&mut self) {
        self.complained = true;
        for source in self.awaited() {
            warn!(
                %source,
                "nothing heard for {:?}: the maps stay as an earlier run has left them until the first list is in",
                self.settings.list_timeout
            );
        }
    }

    /// The backend that a change retires.
    fn retired_by(&self, change: &Change) -> Option<RestingBackend> {
        let (family, id, state) = if let Change::V4(FamilyChange::RetireBackend(id, it)) = change {
            (Family::V4, *id, it.state())
        } else if let Change::V6(FamilyChange::RetireBackend(id, it)) = change {
            (Family::V6, *id, it.state())
        } else {
            return None;
        };
        if state == BackendState::Free {
            return None;
        }
        let backend = self.ledger.backend(family, id)?;
        Some(self.ledger.resting_backend(family, id, backend))
    }
}

/// Whether the map says too that a backend has left.
pub(super) fn has_left(backend: &RestingBackend, actual: &MapContents) -> bool {
    let entry = match backend.family {
        Family::V4 => actual
            .v4
            .backends
            .get(&backend.id)
            .map(|it| (it.state(), it.generation)),
        Family::V6 => actual
            .v6
            .backends
            .get(&backend.id)
            .map(|it| (it.state(), it.generation)),
    };
    entry.is_some_and(|(state, generation)| {
        state != BackendState::Active && generation == backend.generation
    })
}

fn frontend_of(change: Option<&Change>) -> Option<Frontend> {
    if let Change::V4(FamilyChange::PutFrontend(key, _)) = change? {
        Frontend::from_key(key)
    } else if let Change::V6(FamilyChange::PutFrontend(key, _)) = change? {
        Frontend::from_key(key)
    } else {
        None
    }
}
