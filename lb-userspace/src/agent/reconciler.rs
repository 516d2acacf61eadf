//! The maps and what they ought to say: one round from the Services that changed to the maps.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_common::BackendState;
use tracing::warn;

use crate::{
    agent::{Report, RestingBackend, Settings, knowledge::Knowledge, node_routes::NodeRoutes},
    desired::{self, Addresses, Dispute, Frontend, Ledger, Limits, Refusal, Scope},
    maps::{LbMaps, MapContents, MapError, MapFamily, read_contents},
    model::{Dirty, Family, ServiceName, Warning},
    reconcile::{Backoff, Change, FamilyChange, Stopped, apply, plan},
};

/// A Service that did not fit is tried again so long after something has become free: many ids become free together.
const RETRY_REFUSED: Duration = Duration::from_millis(200);

/// How far what the maps said at the start is accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Start {
    /// No plan has been made.
    #[default]
    NotYet,
    /// What is known is in the maps. What else is in them may stand in what cannot be read, and stays.
    InPart,
    /// All of it.
    Whole,
}

/// The maps, what they say and what they ought to say.
#[derive(Debug)]
pub(super) struct Reconciler<M> {
    pub(super) maps: M,
    pub(super) ledger: Ledger,
    /// What the maps say, as far as is known.
    actual: MapContents,
    /// Services to look at with the next plan.
    pub(super) dirty: Dirty,
    /// Keys that the next plan compares: what was touched, and what earlier plans did not get done.
    pending: Scope,
    pub(super) refused: BTreeMap<ServiceName, Refusal>,
    /// The disputes about frontends that have been logged.
    pub(super) disputes: BTreeSet<Dispute>,
    /// Services of which something else is refused than before.
    refusals_changed: BTreeSet<ServiceName>,
    retry_refused: Option<Duration>,
    start: Start,
    /// A change failed: what the maps say is not known any more.
    doubtful: bool,
    routes: NodeRoutes,
    pub(super) backoff: Backoff,
}

impl<M: LbMaps> Reconciler<M> {
    pub(super) fn new(settings: &Settings, maps: M) -> Result<Self, MapError> {
        let limits = Limits {
            capacities: maps.capacities(),
            region_rest: settings.region_rest,
            gone_grace: settings.gone_grace,
        };
        let actual = read_contents(&maps)?;
        let mut routes = NodeRoutes::new(settings.node_device.clone());
        routes.set(&actual);
        Ok(Self {
            maps,
            ledger: Ledger::restore(limits, &actual),
            actual,
            dirty: Dirty::new(),
            pending: Scope::default(),
            refused: BTreeMap::new(),
            disputes: BTreeSet::new(),
            refusals_changed: BTreeSet::new(),
            retry_refused: None,
            start: Start::default(),
            doubtful: false,
            routes,
            backoff: Backoff::new(settings.backoff.0, settings.backoff.1),
        })
    }

    pub(super) fn has_work(&self, knowledge: &Knowledge) -> bool {
        let to_look_at = !self.dirty.is_empty() || !self.pending.is_empty();
        let networks = desired::networks(knowledge.snapshot.place(), &self.ledger);
        let to_write = networks != self.actual.networks;
        self.start == Start::NotYet
            || self.doubtful
            || to_look_at
            || self.ledger.is_touched()
            || to_write
    }

    /// When there is something to do although nothing happens.
    pub(super) fn timer(&self) -> Option<Duration> {
        let timers = [self.ledger.wake_at(), self.retry_refused];
        timers.into_iter().flatten().min()
    }

    /// How many Services or frontends wait for a plan.
    pub(super) fn waiting(&self) -> usize {
        self.dirty.len().max(self.pending.services.len())
    }

    /// Whether the last plan left nothing to do.
    pub(super) fn is_settled(&self) -> bool {
        self.start != Start::NotYet && !self.doubtful && self.waiting() == 0
    }

    /// What is refused, as warnings.
    pub(super) fn refusals(&self) -> Vec<Warning> {
        let refused = self.refused.iter().map(|(name, it)| it.warning(name));
        refused
            .chain(self.disputes.iter().map(|it| it.warning.clone()))
            .collect()
    }

    /// Services of which something else is refused since this was asked last.
    pub(super) fn take_refusals_changed(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.refusals_changed)
    }

    /// Backends that have left, and are known to have left in the maps.
    pub(super) fn resting(&self) -> Vec<RestingBackend> {
        let resting = self.ledger.resting();
        resting
            .filter(|backend| has_left(backend, &self.actual))
            .collect()
    }

    /// Notes whether a source could be read in part only. Returns whether the maps keep what an earlier run wrote, because
    /// it may belong to what the source cannot read.
    pub(super) fn note_partial(&mut self, is_partial: bool) -> bool {
        let has_earlier = self.start != Start::Whole && !self.actual.has_no_frontends();
        if !is_partial && self.start == Start::InPart {
            self.start = Start::NotYet;
        }
        is_partial && has_earlier
    }

    /// The Services that the next round looks at.
    pub(super) fn begin(&mut self, knowledge: &Knowledge, now: Duration) -> &Dirty {
        self.ledger.wake(now);
        self.retry_refused(now);
        if self.start == Start::NotYet {
            self.dirty.extend(knowledge.all_services());
        }
        &self.dirty
    }

    /// Plans and applies until nothing is left to do or an error stops it.
    pub(super) fn round(
        &mut self,
        knowledge: &Knowledge,
        settings: &Settings,
        report: &mut Report,
        clock: &dyn Fn() -> Duration,
    ) {
        match self.changes(knowledge, settings, report, clock) {
            Ok(()) => self.backoff.succeeded(),
            Err(error) => {
                self.doubtful = true;
                self.backoff.failed(clock());
                warn!(%error, changes = report.changes, "the maps are behind; they are read again and the changes repeated");
                report.error = Some(error.to_string());
            }
        }
    }

    /// What the round changed has settled.
    pub(super) fn end(&mut self, now: Duration) {
        self.ledger.settle(&self.actual, now);
        self.note_freed(now);
    }

    fn changes(
        &mut self,
        knowledge: &Knowledge,
        settings: &Settings,
        report: &mut Report,
        clock: &dyn Fn() -> Duration,
    ) -> Result<(), MapError> {
        if self.doubtful {
            self.actual = read_contents(&self.maps)?;
            self.routes.set(&self.actual);
            self.doubtful = false;
            if self.start != Start::InPart {
                self.pending.extend(Scope::of(&self.actual));
            }
            self.pending.extend(self.ledger.everything());
        }
        self.update_ledger(knowledge, clock());
        loop {
            self.pending.extend(self.ledger.take_touched());
            let desired = MapContents {
                networks: desired::networks(knowledge.snapshot.place(), &self.ledger),
                ..self.ledger.contents(&self.pending)
            };
            let changes = plan(&self.actual, &desired, &self.pending);
            self.routes.before(&changes);
            let result = apply(&changes, &mut self.maps, &mut self.actual);
            let done = result
                .as_ref()
                .map_or_else(|stopped| stopped.at, |()| changes.len());
            self.routes.after(changes.get(..done).unwrap_or_default());
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
                (Some(frontend), MapError::Full { .. }) => {
                    self.make_room(&frontend, knowledge, settings, clock())?;
                    self.routes.set(&self.actual);
                }
                _ => return Err(error),
            }
        }
    }

    /// The Services that changed get what they need, or are refused.
    fn update_ledger(&mut self, knowledge: &Knowledge, now: Duration) {
        let place = knowledge.snapshot.place();
        for name in std::mem::take(&mut self.dirty) {
            let wanted = knowledge.wanted(&name);
            let service = knowledge.snapshot.service(&name);
            let addresses = service.map_or_else(Addresses::new, |it| desired::addresses(it, place));
            match self.ledger.update(&name, wanted, &addresses, now) {
                Ok(()) => {
                    if self.refused.remove(&name).is_some() {
                        self.refusals_changed.insert(name);
                    }
                }
                Err(refusal) => self.refuse(&name, refusal),
            }
        }
        if self.ledger.take_disputes_news() {
            self.set_disputes(self.ledger.disputes().into_iter().collect());
        }
        if self.start == Start::NotYet {
            self.start = if knowledge.is_partial() {
                Start::InPart
            } else {
                self.ledger.forget_restored();
                self.pending.extend(Scope::of(&self.actual));
                Start::Whole
            };
            self.pending.extend(self.ledger.everything());
        }
    }

    /// Services dispute other frontends than before.
    fn set_disputes(&mut self, disputes: BTreeSet<Dispute>) {
        for news in disputes.difference(&self.disputes) {
            warn!("{}", news.warning);
        }
        let before = std::mem::replace(&mut self.disputes, disputes);
        let changed = before.symmetric_difference(&self.disputes);
        self.refusals_changed
            .extend(changed.map(|it| it.loser.clone()));
    }

    fn refuse(&mut self, name: &ServiceName, refusal: Refusal) {
        if self.refused.get(name) != Some(&refusal) {
            warn!("{}", refusal.warning(name));
            self.refused.insert(name.clone(), refusal);
            self.refusals_changed.insert(name.clone());
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

    /// Retries refused Services soon if room was freed and is enough for one of them.
    fn note_freed(&mut self, now: Duration) {
        if self.ledger.take_freed() && self.hopeful().next().is_some() {
            let soon = now + RETRY_REFUSED;
            self.retry_refused = Some(self.retry_refused.map_or(soon, |moment| moment.min(soon)));
        }
    }

    /// Refused Services for which there is enough room now. Evaluating a Service with 70,000 endpoints is expensive, so
    /// others are not retried.
    fn hopeful(&self) -> impl Iterator<Item = &ServiceName> {
        let refused = self.refused.iter();
        let hopeful = refused.filter(|(_, it)| self.ledger.free(it.map) >= it.needed);
        hopeful.map(|(name, _)| name)
    }

    /// The map of frontends is full, though it should not be: the Service that did not get in is refused, others go on.
    fn make_room(
        &mut self,
        frontend: &Frontend,
        knowledge: &Knowledge,
        settings: &Settings,
        now: Duration,
    ) -> Result<(), MapError> {
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
            // The key is a backend's own address: connections to it are not tracked.
            self.ledger.leave_untracked(*frontend);
            return Ok(());
        };
        let wanted = knowledge.wanted(&name);
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
        let retry = now + settings.backoff.1;
        self.retry_refused.get_or_insert(retry);
        Ok(())
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
fn has_left(backend: &RestingBackend, actual: &MapContents) -> bool {
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
