//! The agent: the one owner of the state. Events come in, map changes go out.
//!
//! [`Agent`] is a plain value that is told the time; [`run`] is the loop around it, and the only place that reads the
//! clock.
mod findings;
mod health;
mod logged;
mod no_backends;
mod round;
mod show;
mod start;

pub mod event;
pub mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

pub use crate::desired::RestingBackend;
pub use event::{Event, Source};
use logged::Logged;
use start::Start;
pub use view::View;

use crate::{
    desired::{self, Dispute, Ledger, Limits, Refusal, Scope},
    findings::{Findings, node_ports::NodePorts},
    health::{Check, Facts},
    maps::{LbMaps, MapContents, MapError, read_contents},
    model::{Dirty, Place, ServiceName, Snapshot, Warning},
    reconcile::Backoff,
};

/// What the agent must know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the agent runs, as far as flags say.
    pub place: Place,
    /// The sources it waits for before it writes anything.
    pub sources: BTreeSet<Source>,
    /// While changes keep coming they are collected for so long between two plans.
    pub collect: Duration,
    /// How long an old slot region rests before its slots are written again; at least a second.
    pub region_rest: Duration,
    /// How long after a terminating endpoint has left all slices its pod counts as gone.
    pub gone_grace: Duration,
    /// The first and the longest pause after a failed plan.
    pub backoff: (Duration, Duration),
    /// After how long a source that has not listed is complained about.
    pub list_timeout: Duration,
}

/// A Service that did not fit is tried again so long after something has become free: many ids become free together.
const RETRY_REFUSED: Duration = Duration::from_millis(200);

/// Told after each plan. Runs inside the agent's loop: it must not block.
pub trait Observer {
    /// A plan was carried out, or stopped at an error.
    fn applied(&mut self, report: &Report);
}

impl Observer for () {
    fn applied(&mut self, _: &Report) {}
}

/// What a plan did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Changes made.
    pub changes: usize,
    /// From the start of planning to the last change.
    pub duration: Duration,
    /// What stopped it.
    pub error: Option<String>,
    /// Backends that left their services or are gone: connected UDP sockets to them can be destroyed.
    pub retired: Vec<RestingBackend>,
}

/// What is known of a source.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    listed: bool,
    /// Something of it could never be read.
    is_partial: bool,
    last_event: Option<Duration>,
}

/// The agent's state.
#[derive(Debug)]
pub struct Agent<M> {
    maps: M,
    settings: Settings,
    snapshot: Snapshot,
    ledger: Ledger,
    /// What the maps say, as far as is known.
    actual: MapContents,
    /// Services to look at with the next plan.
    dirty: Dirty,
    /// Keys that the next plan compares: what was touched, and what earlier plans did not get done.
    pending: Scope,
    sources: BTreeMap<Source, Seen>,
    trouble: BTreeMap<Source, Vec<Warning>>,
    logged: Logged,
    /// What has been said of the node and of `ServiceCIDR`s.
    said_of_node: Vec<Warning>,
    refused: BTreeMap<ServiceName, Refusal>,
    /// The disputes about frontends that have been told of.
    disputes: BTreeSet<Dispute>,
    /// Services with a port for health checks, as of the last plan that was begun.
    checks: BTreeMap<ServiceName, Check>,
    health: watch::Sender<Facts>,
    findings: watch::Sender<Findings>,
    node_ports: watch::Sender<NodePorts>,
    /// When each Service or its endpoints last changed.
    changed: BTreeMap<ServiceName, Duration>,
    retry_refused: Option<Duration>,
    start: Start,
    complained: bool,
    /// A change failed: what the maps say is not known any more.
    doubtful: bool,
    backoff: Backoff,
    /// The last plan, and when it ended.
    last: Option<(Report, Duration)>,
}

impl<M: LbMaps> Agent<M> {
    /// An agent that knows what the maps say, and nothing else.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn new(settings: Settings, maps: M) -> Result<Self, MapError> {
        let limits = Limits {
            capacities: maps.capacities(),
            region_rest: settings.region_rest,
            gone_grace: settings.gone_grace,
        };
        let actual = read_contents(&maps)?;
        let ledger = Ledger::restore(limits, &actual);
        let sources = settings
            .sources
            .iter()
            .map(|source| (*source, Seen::default()));
        let mut agent = Self {
            sources: sources.collect(),
            backoff: Backoff::new(settings.backoff.0, settings.backoff.1),
            maps,
            snapshot: Snapshot::new(settings.place.clone()),
            settings,
            ledger,
            actual,
            dirty: Dirty::new(),
            pending: Scope::default(),
            trouble: BTreeMap::new(),
            logged: Logged::default(),
            said_of_node: Vec::new(),
            refused: BTreeMap::new(),
            disputes: BTreeSet::new(),
            checks: BTreeMap::new(),
            health: watch::Sender::default(),
            findings: watch::Sender::default(),
            node_ports: watch::Sender::default(),
            changed: BTreeMap::new(),
            retry_refused: None,
            start: Start::default(),
            complained: false,
            doubtful: false,
            last: None,
        };
        agent.note_place();
        Ok(agent)
    }

    /// The maps.
    pub fn maps(&self) -> &M {
        &self.maps
    }
    /// The maps.
    pub fn maps_mut(&mut self) -> &mut M {
        &mut self.maps
    }

    /// Takes notice of an event; nothing is written. `now` is the time since the agent's start.
    pub fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Replaced {
                services,
                slices,
                service_cidrs,
                vanished_pods,
                is_complete,
            } => {
                self.seen(Source::Manifests, true, now);
                self.note_partial(Source::Manifests, !is_complete);
                let vanished = vanished_pods.into_iter().collect();
                self.ledger.vanished(&vanished, now);
                let dirty = self.snapshot.replace_services(services);
                self.look_at(dirty, now);
                let dirty = self.snapshot.replace_slices(slices);
                self.look_at(dirty, now);
                let dirty = self.snapshot.replace_service_cidrs(service_cidrs);
                self.moved(dirty);
            }
            Event::ServicesListed(services) => {
                self.seen(Source::Services, true, now);
                let dirty = self.snapshot.replace_services(services);
                self.look_at(dirty, now);
            }
            Event::ServiceApplied(service) => {
                self.seen(Source::Services, false, now);
                let dirty = self.snapshot.apply_service(*service);
                self.look_at(dirty, now);
            }
            Event::ServiceDeleted(name) => {
                self.seen(Source::Services, false, now);
                let dirty = self.snapshot.delete_service(&name);
                self.look_at(dirty, now);
            }
            Event::SlicesListed(slices) => {
                self.seen(Source::EndpointSlices, true, now);
                let dirty = self.snapshot.replace_slices(slices);
                self.look_at(dirty, now);
            }
            Event::SliceApplied(slice) => {
                self.seen(Source::EndpointSlices, false, now);
                let dirty = self.snapshot.apply_slice(*slice);
                self.look_at(dirty, now);
            }
            Event::SliceDeleted(name) => {
                self.seen(Source::EndpointSlices, false, now);
                let dirty = self.snapshot.delete_slice(&name);
                self.look_at(dirty, now);
            }
            Event::NodeChanged(node) => {
                self.seen(Source::Node, true, now);
                let dirty = self.snapshot.set_node(node.map(|node| *node));
                self.moved(dirty);
            }
            Event::ServiceCidrsListed(objects) => {
                self.seen(Source::ServiceCidrs, true, now);
                let dirty = self.snapshot.replace_service_cidrs(objects);
                self.moved(dirty);
            }
            Event::ServiceCidrApplied(object) => {
                self.seen(Source::ServiceCidrs, false, now);
                let dirty = self.snapshot.apply_service_cidr(*object);
                self.moved(dirty);
            }
            Event::ServiceCidrDeleted(name) => {
                self.seen(Source::ServiceCidrs, false, now);
                let dirty = self.snapshot.delete_service_cidr(&name);
                self.moved(dirty);
            }
            Event::LocalAddresses(addresses) => {
                let dirty = self.snapshot.set_local_addresses(addresses);
                self.moved(dirty);
            }
            Event::Trouble { source, warnings } => self.trouble(source, warnings),
            Event::Unreferenced(backends) => self.ledger.release(&backends),
            // Whoever asked may have gone away meanwhile: that is no concern of the agent's.
            Event::Resting(answer) => drop(answer.send(self.resting())),
            Event::View(answer) => drop(answer.send(self.view(now))),
            Event::Stop => {}
        }
        self.tell_of_work(now);
    }

    /// Something about the place has changed that concerns these Services.
    fn moved(&mut self, dirty: Dirty) {
        self.dirty.extend(dirty);
        self.note_place();
        self.tell_of_node();
    }

    /// Says what is new to be said of the node.
    fn tell_of_node(&mut self) {
        let warnings = self.warnings_of_node();
        for news in warnings.iter().filter(|it| !self.said_of_node.contains(it)) {
            warn!("{news}");
        }
        self.said_of_node = warnings;
    }

    /// The node is where it is, and has the addresses it has.
    fn note_place(&mut self) {
        self.tell_place();
        let own = desired::own_addresses(self.snapshot.place());
        self.ledger.set_addresses(None, &own);
    }

    /// Backends that have left, and are known to have left in the maps.
    fn resting(&self) -> Vec<RestingBackend> {
        let resting = self.ledger.resting();
        resting
            .filter(|backend| round::has_left(backend, &self.actual))
            .collect()
    }

    fn seen(&mut self, source: Source, listed: bool, now: Duration) {
        let seen = self.sources.entry(source).or_default();
        if listed && !seen.listed {
            info!(%source, "first list");
        }
        seen.listed |= listed;
        seen.last_event = Some(now);
    }

    fn look_at(&mut self, names: impl IntoIterator<Item = ServiceName>, now: Duration) {
        for name in names {
            if self.snapshot.service(&name).is_some() {
                self.changed.insert(name.clone(), now);
            } else {
                self.changed.remove(&name);
            }
            let warnings = self.warnings_about(&name).into_iter().cloned().collect();
            for warning in self.logged.news(&name, warnings) {
                warn!("{warning}");
            }
            self.file(&name);
            self.dirty.insert(name);
        }
    }

    fn trouble(&mut self, source: Source, warnings: Vec<Warning>) {
        let known = self.trouble.get(&source).map_or(&[][..], Vec::as_slice);
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            warn!("{warning}");
        }
        if warnings.is_empty() && !known.is_empty() {
            info!(%source, "no more trouble");
        }
        self.trouble.insert(source, warnings);
    }

    /// The sources that nothing can be written without and that have not listed yet.
    fn awaited(&self) -> impl Iterator<Item = Source> {
        let awaited = self
            .sources
            .iter()
            .filter(|(source, seen)| !seen.listed && **source != Source::Node);
        awaited.map(|(source, _)| *source)
    }
}

/// Feeds events to the agent until [`Event::Stop`] comes or every sender is gone.
pub async fn run<M: LbMaps, O: Observer>(
    mut agent: Agent<M>,
    mut events: mpsc::Receiver<Event>,
    mut observer: O,
) -> Agent<M> {
    let start = tokio::time::Instant::now();
    let clock = || start.elapsed();
    loop {
        let event = match agent.wake_at() {
            Some(moment) => {
                // An event that is there already belongs to the same plan: it is taken before the clock is asked.
                match tokio::time::timeout_at(start + moment, events.recv()).await {
                    Ok(event) => event.map(Some),
                    Err(_) => Some(None),
                }
            }
            None => events.recv().await.map(Some),
        };
        match event {
            Some(Some(Event::Stop)) | None => return agent,
            Some(Some(event)) => agent.handle(event, clock()),
            Some(None) => {}
        }
        // Everything that has happened so far goes into one plan; the bound keeps a flood from putting it off.
        for _ in 0..events.len().min(DRAIN) {
            match events.try_recv() {
                Ok(Event::Stop) => return agent,
                Ok(event) => agent.handle(event, clock()),
                Err(_) => break,
            }
        }
        if let Some(report) = agent.reconcile(&clock) {
            observer.applied(&report);
        }
    }
}

/// How many events that wait already are taken into a plan.
const DRAIN: usize = 4096;
