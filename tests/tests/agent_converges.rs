//! Whatever happens, and whatever fails for a while: in the end the maps say what the sources say.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use lb_common::BackendState;
use lb_userspace::{
    agent::{Agent, Event, Settings, Source},
    maps::{
        MapContents,
        faulty::{Fault, FaultyMaps},
        read_contents,
    },
    model::{EndpointSlice, Service},
};
use proptest::{collection::vec, prelude::*};
use tests::{
    cluster::scenario::{resting, settings},
    oracle::random_cluster::{Cluster, Step, answers, place, step, with_double_slots},
};

/// What happens to the agent.
#[derive(Clone, Debug)]
enum Happening {
    /// The API server tells of a change.
    Told(Step),
    /// Something changes, and nobody tells the agent.
    Missed(Step),
    /// The API server is back and lists everything.
    Listed,
    /// The next writes have these fates.
    Faults(Vec<Fault>),
    /// So many reads fail.
    FailingReads(u32),
    /// Time passes, in milliseconds.
    Pause(u64),
    /// A sweep finds no flow that refers to a backend that has left.
    Sweep,
    /// The agent ends and another one starts.
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    let fault = prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Full),
        1 => Just(Fault::Io),
        1 => Just(Fault::IoAfterWriting),
    ];
    prop_oneof![
        20 => step().prop_map(Happening::Told),
        3 => step().prop_map(Happening::Missed),
        2 => Just(Happening::Listed),
        4 => vec(fault, 1..12).prop_map(Happening::Faults),
        1 => (1..4_u32).prop_map(Happening::FailingReads),
        10 => prop_oneof![0..10_u64, 0..3000_u64].prop_map(Happening::Pause),
        3 => Just(Happening::Sweep),
        1 => Just(Happening::Restart),
    ]
}

struct Bench {
    cluster: Cluster,
    agent: Agent<FaultyMaps>,
    now: Duration,
}

fn kubernetes() -> Settings {
    Settings {
        sources: BTreeSet::from([Source::Services, Source::EndpointSlices, Source::Node]),
        place: place(),
        ..settings().unwrap()
    }
}

impl Bench {
    fn new() -> Self {
        let agent = Agent::new(kubernetes(), FaultyMaps::default()).unwrap();
        Self {
            cluster: Cluster::default(),
            agent,
            now: Duration::ZERO,
        }
    }

    fn handle(&mut self, event: Event) {
        self.agent.handle(event, self.now);
        self.reconcile();
    }

    /// What is due is done, and after each plan the maps must be fit for use, however it ended.
    fn reconcile(&mut self) {
        let ticks = Cell::new(self.now);
        // Time passes while the agent works: a microsecond each time it looks.
        let clock = || {
            ticks.set(ticks.get() + Duration::from_micros(1));
            ticks.get()
        };
        self.agent.reconcile(&clock);
        self.now = ticks.get();
    }

    fn pause(&mut self, pause: Duration) {
        let end = self.now + pause;
        while let Some(moment) = self.agent.wake_at().filter(|moment| *moment <= end) {
            self.now = self.now.max(moment);
            self.reconcile();
        }
        self.now = self.now.max(end);
    }

    fn list(&mut self) {
        let services: Vec<Service> = self.cluster.services.values().cloned().collect();
        let slices: Vec<EndpointSlice> = self.cluster.slices.values().cloned().collect();
        self.handle(Event::ServicesListed(services));
        self.handle(Event::SlicesListed(slices));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Told(step) => {
                self.cluster.take(&step);
                self.handle(match step {
                    Step::Service(service) => Event::ServiceApplied(Box::new(service)),
                    Step::NoService(name) => Event::ServiceDeleted(name),
                    Step::Slice(slice) => Event::SliceApplied(Box::new(slice)),
                    Step::NoSlice(name) => Event::SliceDeleted(name),
                });
            }
            Happening::Missed(step) => self.cluster.take(&step),
            Happening::Listed => self.list(),
            Happening::Faults(faults) => self.agent.maps_mut().faults.extend(faults),
            Happening::FailingReads(reads) => self.agent.maps_mut().failing_reads.set(reads),
            Happening::Pause(milliseconds) => self.pause(Duration::from_millis(milliseconds)),
            Happening::Sweep => {
                let left = resting(&mut self.agent, self.now).unwrap();
                self.handle(Event::Unreferenced(left));
            }
            Happening::Restart => {
                let maps = std::mem::take(self.agent.maps_mut());
                maps.failing_reads.set(0);
                self.agent = Agent::new(kubernetes(), maps).unwrap();
                // The new agent's clock begins anew; the regions that rested have done so by then.
                self.now = Duration::ZERO;
            }
        }
    }

    fn contents(&self) -> MapContents {
        read_contents(&self.agent.maps().maps).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_and_any_faults_that_stop_lead_to_what_is_desired(story in vec(happening(), 1..60)) {
        let mut bench = Bench::new();
        for happening in story {
            bench.happen(happening.clone());
            let contents = bench.contents();
            let fit = answers(&contents);
            prop_assert!(fit.is_ok(), "after {happening:?}: {fit:?}");
        }
        // The faults stop, the API server lists once more, and a minute passes.
        bench.agent.maps_mut().faults.clear();
        bench.agent.maps_mut().failing_reads.set(0);
        bench.list();
        bench.pause(Duration::from_mins(1));
        let contents = bench.contents();
        prop_assert_eq!(answers(&contents), Ok(bench.cluster.answers()));
        prop_assert!(with_double_slots(&contents).is_empty());
        let view = bench.agent.view(bench.now);
        // A dispute is told as refused: both cannot be had.
        prop_assert_eq!(view.in_sync, view.refused.is_empty());
        prop_assert_eq!(view.pending, 0);
        // Nothing is kept for nobody: after a sweep the ids that are in use are those that slots name.
        bench.happen(Happening::Sweep);
        bench.pause(Duration::from_secs(10));
        prop_assert_eq!(in_use(&bench.contents()), in_slots(&bench.contents()));
        // And nothing is left to be done: the agent sleeps until something happens.
        let due = bench.agent.wake_at().filter(|moment| *moment <= bench.now);
        prop_assert_eq!(due, None);
    }

    #[test]
    fn before_every_source_has_listed_nothing_is_written(story in vec(step(), 1..20), first in any::<bool>()) {
        let mut bench = Bench::new();
        bench.list();
        for step in &story {
            bench.happen(Happening::Told(step.clone()));
        }
        bench.pause(Duration::from_secs(1));
        let before = bench.contents();
        bench.happen(Happening::Restart);
        if first {
            bench.handle(Event::ServicesListed(Vec::new()));
        } else {
            bench.handle(Event::SlicesListed(Vec::new()));
        }
        bench.pause(Duration::from_hours(1));
        prop_assert_eq!(bench.contents(), before);
        let told = bench.agent.view(bench.now).warnings;
        prop_assert!(told.iter().any(|it| it.problem.contains("first list")), "{told:?}");
    }
}

/// Backends that are not free: version of their family, id.
fn in_use(contents: &MapContents) -> BTreeSet<(u8, u32)> {
    let v4 = contents
        .v4
        .backends
        .iter()
        .map(|(id, entry)| (4, *id, entry.state()));
    let v6 = contents
        .v6
        .backends
        .iter()
        .map(|(id, entry)| (6, *id, entry.state()));
    let used = v4
        .chain(v6)
        .filter(|(_, _, state)| *state != BackendState::Free);
    used.map(|(version, id, _)| (version, id)).collect()
}

/// Backends that slots of a service name.
fn in_slots(contents: &MapContents) -> BTreeSet<(u8, u32)> {
    let mut named = BTreeSet::new();
    for (id, entry) in &contents.services {
        let v6 =
            contents.v6.backends.values().any(|backend| {
                backend.service_id == *id && backend.state() == BackendState::Active
            });
        for index in entry.slots.start()..entry.slots.start() + entry.slots.length() {
            named.insert((if v6 { 6 } else { 4 }, contents.slots[&index].backend_id));
        }
    }
    named
}

#[test]
fn the_first_change_after_a_quiet_time_is_applied_at_once_and_a_burst_is_collected() {
    let mut bench = Bench::new();
    bench.list();
    bench.pause(Duration::from_secs(1));
    let service = |number: u8| {
        let text = serde_json::json!({
            "metadata": {"name": format!("web-{number}")},
            "spec": {"clusterIP": format!("10.96.0.{number}"), "ports": [{"port": 80}]},
        });
        let service = lb_userspace::convert::service(&serde_json::from_value(text).unwrap());
        Event::ServiceApplied(Box::new(service))
    };
    // Each has an entry for its port, and one for all others.
    bench.handle(service(1));
    assert_eq!(bench.contents().v4.frontends.len(), 2, "at once");
    bench.handle(service(2));
    bench.handle(service(3));
    assert_eq!(bench.contents().v4.frontends.len(), 2, "collected");
    bench.pause(Duration::from_millis(6));
    assert_eq!(bench.contents().v4.frontends.len(), 6, "but not for long");
}

#[test]
fn a_fault_that_stays_is_retried_with_growing_pauses_and_told() {
    let mut bench = Bench::new();
    bench.agent.maps_mut().faults.extend([Fault::Io; 500]);
    bench.happen(Happening::Told(a_service()));
    bench.list();
    bench.pause(Duration::from_mins(1));
    let tries = 500 - bench.agent.maps().faults.len();
    assert!((5..40).contains(&tries), "{tries} tries in a minute");
    let plan = bench.agent.view(bench.now).last_plan.unwrap();
    assert!(plan.error.unwrap().contains("cannot be written"));
}

fn a_service() -> Step {
    let text = serde_json::json!({
        "metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    Step::Service(lb_userspace::convert::service(
        &serde_json::from_value(text).unwrap(),
    ))
}
