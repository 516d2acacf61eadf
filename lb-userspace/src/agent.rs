//! The agent: the one owner of the state. Events come in, map changes go out.
//!
//! [`Agent`] is a plain value that is told the time; [`run`] is the loop around it, and the only place that reads the
//! clock.
mod findings;
mod knowledge;
mod logged;
mod no_backends;
mod node_routes;
mod publisher;
mod reconciler;
mod show;

pub mod event;
pub mod view;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

pub use crate::desired::RestingBackend;
pub use event::{Event, Source};
use knowledge::Knowledge;
use publisher::Publisher;
use reconciler::Reconciler;
pub use view::View;

use crate::{
    datapath::devices::node_device::NodeDevice,
    desired,
    findings::{Findings, node_ports::NodePorts},
    health::Facts,
    maps::{LbMaps, MapError},
    model::{Dirty, Place, ServiceName},
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
    /// Where processes of the node are served over UDP and SCTP; without it, UDP is translated at their sockets.
    pub node_device: Option<Arc<NodeDevice>>,
}

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

/// The agent's state: what it knows, what it reconciles, and what it publishes.
#[derive(Debug)]
pub struct Agent<M> {
    settings: Settings,
    knowledge: Knowledge,
    reconciler: Reconciler<M>,
    publisher: Publisher,
    /// The sources that have not listed for too long have been logged.
    complained: bool,
    /// The last plan, and when it ended.
    last: Option<(Report, Duration)>,
}

impl<M: LbMaps> Agent<M> {
    /// An agent that knows what the maps say, and nothing else.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn new(settings: Settings, maps: M) -> Result<Self, MapError> {
        let mut agent = Self {
            knowledge: Knowledge::new(&settings),
            reconciler: Reconciler::new(&settings, maps)?,
            publisher: Publisher::default(),
            settings,
            complained: false,
            last: None,
        };
        agent.note_place();
        Ok(agent)
    }

    /// The maps.
    pub fn maps(&self) -> &M {
        &self.reconciler.maps
    }
    /// The maps.
    pub fn maps_mut(&mut self) -> &mut M {
        &mut self.reconciler.maps
    }
    /// What health checks are answered by. Receivers are woken by other servers, not by other answers.
    pub fn health(&self) -> watch::Receiver<Facts> {
        self.publisher.health.subscribe()
    }
    /// What the owners of Services should know.
    pub fn findings(&self) -> watch::Receiver<Findings> {
        self.publisher.findings.subscribe()
    }
    /// The node ports that are served.
    pub fn node_ports(&self) -> watch::Receiver<NodePorts> {
        self.publisher.node_ports.subscribe()
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
                self.knowledge.seen(Source::Manifests, true, now);
                let is_partial = self.reconciler.note_partial(!is_complete);
                self.knowledge.set_partial(Source::Manifests, is_partial);
                let vanished = vanished_pods.into_iter().collect();
                self.reconciler.ledger.vanished(&vanished, now);
                let dirty = self.knowledge.snapshot.replace_services(services);
                self.look_at(dirty, now);
                let dirty = self.knowledge.snapshot.replace_slices(slices);
                self.look_at(dirty, now);
                let dirty = self.knowledge.snapshot.replace_service_cidrs(service_cidrs);
                self.moved(dirty);
            }
            Event::ServicesListed(services) => {
                self.knowledge.seen(Source::Services, true, now);
                let services = self.knowledge.with_kept_services(services);
                let dirty = self.knowledge.snapshot.replace_services(services);
                self.look_at(dirty, now);
            }
            Event::ServiceApplied(service) => {
                self.knowledge.seen(Source::Services, false, now);
                let dirty = self.knowledge.snapshot.apply_service(*service);
                self.look_at(dirty, now);
            }
            Event::ServiceDeleted(name) => {
                self.knowledge.seen(Source::Services, false, now);
                let dirty = self.knowledge.snapshot.delete_service(&name);
                self.look_at(dirty, now);
            }
            Event::SlicesListed(slices) => {
                self.knowledge.seen(Source::EndpointSlices, true, now);
                let slices = self.knowledge.with_kept_slices(slices);
                let dirty = self.knowledge.snapshot.replace_slices(slices);
                self.look_at(dirty, now);
            }
            Event::SliceApplied(slice) => {
                self.knowledge.seen(Source::EndpointSlices, false, now);
                let dirty = self.knowledge.snapshot.apply_slice(*slice);
                self.look_at(dirty, now);
            }
            Event::SliceDeleted(name) => {
                self.knowledge.seen(Source::EndpointSlices, false, now);
                let dirty = self.knowledge.snapshot.delete_slice(&name);
                self.look_at(dirty, now);
            }
            Event::NodeChanged(node) => {
                self.knowledge.seen(Source::Node, true, now);
                let node = self.knowledge.or_kept_node(node.map(|node| *node));
                let dirty = self.knowledge.snapshot.set_node(node);
                self.moved(dirty);
            }
            Event::ServiceCidrsListed(objects) => {
                self.knowledge.seen(Source::ServiceCidrs, true, now);
                let objects = self.knowledge.with_kept_service_cidrs(objects);
                let dirty = self.knowledge.snapshot.replace_service_cidrs(objects);
                self.moved(dirty);
            }
            Event::ServiceCidrApplied(object) => {
                self.knowledge.seen(Source::ServiceCidrs, false, now);
                let dirty = self.knowledge.snapshot.apply_service_cidr(*object);
                self.moved(dirty);
            }
            Event::ServiceCidrDeleted(name) => {
                self.knowledge.seen(Source::ServiceCidrs, false, now);
                let dirty = self.knowledge.snapshot.delete_service_cidr(&name);
                self.moved(dirty);
            }
            Event::DeviceAddresses(addresses) => {
                let dirty = self.knowledge.snapshot.set_device_addresses(addresses);
                self.moved(dirty);
            }
            Event::Unreadable { source, objects } => {
                for name in self.knowledge.set_unreadable(source, objects) {
                    self.publisher.file(&name, self.about(&name));
                }
            }
            Event::Trouble { source, warnings } => self.knowledge.set_trouble(source, warnings),
            Event::Unreferenced(backends) => self.reconciler.ledger.release(&backends),
            // Whoever asked may have gone away meanwhile: that is no concern of the agent's.
            Event::Resting(answer) => drop(answer.send(self.reconciler.resting())),
            Event::View(answer) => drop(answer.send(self.view(now))),
            Event::Stop => {}
        }
        if self.reconciler.has_work(&self.knowledge) {
            self.publisher.behind(now);
        }
    }

    /// Something about the place has changed that concerns these Services.
    fn moved(&mut self, dirty: Dirty) {
        self.reconciler.dirty.extend(dirty);
        self.note_place();
        self.publisher.log_node(self.knowledge.warnings_of_node());
    }

    /// The node is where it is, and has the addresses it has.
    fn note_place(&mut self) {
        self.publisher.node(&self.knowledge);
        let own = desired::own_addresses(self.knowledge.snapshot.place());
        self.reconciler.ledger.set_addresses(None, &own);
    }

    /// Services or their endpoints have changed.
    fn look_at(&mut self, names: impl IntoIterator<Item = ServiceName>, now: Duration) {
        for name in names {
            self.knowledge.note_change(&name, now);
            let warnings = self.knowledge.warnings_about(&name).into_iter().cloned();
            self.publisher.log_service(&name, warnings.collect());
            self.publisher.file(&name, self.about(&name));
            self.reconciler.dirty.insert(name);
        }
    }

    /// When [`Agent::reconcile`] has something to do, if nothing else happens.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.knowledge.awaited().next().is_some() {
            return (!self.complained).then_some(self.settings.list_timeout);
        }
        let collected = self
            .last
            .as_ref()
            .map_or(Duration::ZERO, |(_, end)| *end + self.settings.collect);
        let work = self
            .reconciler
            .has_work(&self.knowledge)
            .then_some(collected);
        let next = work.into_iter().chain(self.reconciler.timer()).min()?;
        Some(next.max(self.reconciler.backoff.until().unwrap_or_default()))
    }

    /// Brings the maps to what is wanted, if it is time to. `clock` tells the time since the agent's start.
    pub fn reconcile(&mut self, clock: &dyn Fn() -> Duration) -> Option<Report> {
        let start = clock();
        if self.wake_at().is_none_or(|moment| moment > start) {
            return None;
        }
        if self.knowledge.awaited().next().is_some() {
            self.complain();
            return None;
        }
        for name in self.reconciler.begin(&self.knowledge, start) {
            self.publisher.service(&self.knowledge, name);
        }
        let mut report = Report::default();
        self.reconciler
            .round(&self.knowledge, &self.settings, &mut report, clock);
        for name in self.reconciler.take_refusals_changed() {
            self.publisher.file(&name, self.about(&name));
        }
        self.publisher.log_node(self.knowledge.warnings_of_node());
        let end = clock();
        self.reconciler.end(end);
        if report.error.is_none() {
            self.publisher.up_to_date(end);
        }
        report.duration = end.saturating_sub(start);
        // The first plan is reported even if it had nothing to do.
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

    fn complain(&mut self) {
        self.complained = true;
        for source in self.knowledge.awaited() {
            warn!(
                %source,
                "no first list for {:?}: until it comes, the maps stay as an earlier run left them",
                self.settings.list_timeout
            );
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
