//! The agent: the one owner of the state. Events come in, map changes go out.
//!
//! [`Agent`] is a plain value that is told the time; [`run`] is the loop around it, and the only place that reads the
//! clock.
use std::{collections::BTreeSet, time::Duration};

use tokio::sync::mpsc;

use crate::maps::{LbMaps, MapError};

pub mod event;
pub mod view;

pub use event::{Event, RestingBackend, Source};
pub use view::View;

/// What the agent must know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
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

/// Told after each plan. Runs inside the agent's loop: it must not block.
pub trait Observer {
    /// A plan was carried out, or stopped at an error.
    fn applied(&mut self, report: &Report);
}

/// What a plan did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Changes made.
    pub changes: usize,
    /// From the start of planning to the last change.
    pub duration: Duration,
    /// What stopped it.
    pub error: Option<String>,
    /// Backends that left their services: connected UDP sockets to them can be destroyed.
    pub retired: Vec<RestingBackend>,
}

/// The agent's state.
#[derive(Debug)]
pub struct Agent<M> {
    maps: M,
    settings: Settings,
}

impl<M: LbMaps> Agent<M> {
    /// An agent that knows what the maps say, and nothing else.
    pub fn new(settings: Settings, maps: M) -> Result<Self, MapError> {
        Ok(Self { maps, settings })
    }

    /// Takes notice of an event. `now` is the time since the agent's start.
    pub fn handle(&mut self, event: Event, now: Duration) {
        drop((event, now, &self.settings, &self.maps));
    }

    /// When [`Agent::reconcile`] has something to do, if nothing else happens.
    pub fn wake_at(&self) -> Option<Duration> {
        None
    }

    /// Brings the maps to what is wanted, if it is time to.
    pub fn reconcile(&mut self, now: Duration) -> Option<Report> {
        drop(now);
        None
    }
}

/// Feeds events to the agent until [`Event::Stop`] comes or every sender is gone.
pub async fn run<M: LbMaps, O: Observer>(
    mut agent: Agent<M>,
    mut events: mpsc::Receiver<Event>,
    mut observer: O,
) -> Agent<M> {
    let start = tokio::time::Instant::now();
    while let Some(event) = events.recv().await {
        if matches!(event, Event::Stop) {
            break;
        }
        agent.handle(event, start.elapsed());
        if let Some(report) = agent.reconcile(start.elapsed()) {
            observer.applied(&report);
        }
    }
    agent
}
