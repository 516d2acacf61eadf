//! What holds for every plan, after every one of its steps.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use lb_common::{BackendEntry, BackendState, ServiceEntry, SlotEntry, V4, V6};
use lb_userspace::{
    agent::RestingBackend,
    desired::{self, Frontend, Ledger, Limits},
    maps::{Capacities, LbMaps, MapContents, MapFamily, fake::FakeMaps},
    model::ServiceName,
    reconcile::{
        Change, FamilyChange,
        apply::{apply, note},
        plan,
    },
};
use proptest::{
    prelude::*,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tests::oracle::random_cluster::{
    Cluster, Step, answers, batches, masquerading, place, with_double_slots,
};

const REST: Duration = Duration::from_secs(2);

fn limits(capacities: Capacities) -> Limits {
    Limits {
        capacities,
        region_rest: REST,
        gone_grace: Duration::from_secs(3),
    }
}

/// The whole way from steps to maps, with a watchful eye on each write.
struct Bench {
    cluster: Cluster,
    ledger: Ledger,
    actual: MapContents,
    maps: FakeMaps,
    now: Duration,
    /// When a slot was last in a region that a service named, and what it said.
    seen: BTreeMap<u32, (Duration, SlotEntry)>,
    refused: BTreeSet<ServiceName>,
}

impl Bench {
    fn new(capacities: Capacities) -> Self {
        Self {
            cluster: Cluster::default(),
            ledger: Ledger::new(limits(capacities)),
            actual: MapContents::default(),
            maps: FakeMaps::with_capacities(capacities),
            now: Duration::ZERO,
            seen: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// What the ledger thinks after these steps, as a plan.
    fn plan(&mut self, batch: &[Step]) -> Vec<Change> {
        let mut dirty = self.refused.clone();
        for step in batch {
            self.cluster.take(step);
            match step {
                Step::Service(service) => drop(dirty.insert(service.name.clone())),
                Step::NoService(name) => drop(dirty.insert(name.clone())),
                Step::Slice(slice) => drop(dirty.insert(slice.service.clone())),
                Step::NoSlice(_) => dirty.extend(self.cluster.services.keys().cloned()),
            }
        }
        self.ledger.wake(self.now);
        for name in dirty {
            match update(&mut self.ledger, &self.cluster, &name, self.now) {
                Ok(()) => drop(self.refused.remove(&name)),
                Err(_) => drop(self.refused.insert(name)),
            }
        }
        let scope = self.ledger.take_touched();
        plan(&self.actual, &self.ledger.contents(&scope), &scope)
    }

    /// Makes the changes one by one and looks at the maps after each.
    fn carry_out(&mut self, changes: &[Change]) -> Result<(), TestCaseError> {
        let before = answers(&self.actual).map_err(TestCaseError::fail)?;
        let mut last = self.actual.clone();
        for change in changes {
            note(change, &mut last);
        }
        let after = answers(&last).map_err(TestCaseError::fail)?;
        for change in changes {
            self.check_slots(change)?;
            let old = self.actual.clone();
            let applied = apply(
                std::slice::from_ref(change),
                &mut self.maps,
                &mut self.actual,
            );
            prop_assert!(applied.is_ok(), "{change:?}: {applied:?}");
            check_backends::<V4>(&old, &self.actual)?;
            check_backends::<V6>(&old, &self.actual)?;
            let middle = answers(&self.actual);
            prop_assert!(middle.is_ok(), "after {change:?}: {middle:?}");
            let middle = middle.unwrap_or_default();
            for frontend in before.keys().filter(|it| after.contains_key(it)) {
                prop_assert!(
                    middle.contains_key(frontend),
                    "{frontend} is missing after {change:?}"
                );
                let served = |answers: &BTreeMap<Frontend, BTreeSet<SocketAddr>>| {
                    !answers[frontend].is_empty()
                };
                prop_assert!(
                    served(&middle) || !served(&before) || !served(&after),
                    "{frontend} has nobody after {change:?}"
                );
            }
            for (frontend, members) in &middle {
                let known = before.contains_key(frontend) || after.contains_key(frontend);
                prop_assert!(
                    known,
                    "{frontend} is nobody's after {change:?}: {members:?}"
                );
            }
            self.look();
        }
        let doubles = with_double_slots(&self.actual);
        prop_assert!(doubles.is_empty(), "{doubles:?}");
        self.ledger.settle(&self.actual, self.now);
        Ok(())
    }

    /// Slots that a packet may be reading are not given to somebody else.
    fn check_slots(&self, change: &Change) -> Result<(), TestCaseError> {
        let Change::PutSlots(start, slots) = change else {
            return Ok(());
        };
        for (index, slot) in (*start..).zip(slots) {
            if let Some((moment, entry)) = self.seen.get(&index) {
                let rested = self.now >= *moment + REST;
                let own = slot.service_id == entry.service_id;
                prop_assert!(
                    rested || own,
                    "slot {index} was read at {moment:?}, now {:?}",
                    self.now
                );
            }
        }
        Ok(())
    }

    fn look(&mut self) {
        for entry in self.actual.services.values() {
            for index in entry.slots.start()..entry.slots.start() + entry.slots.length() {
                let slot = self.actual.slots.get(&index).copied().unwrap_or_default();
                self.seen.insert(index, (self.now, slot));
            }
        }
    }

    /// A sweep finds no flow of those backends whose turn it is.
    fn sweep(&mut self, chance: u8) {
        let left = self
            .ledger
            .resting()
            .filter(|it| u8::try_from(it.id % 3) == Ok(chance % 3));
        let left: Vec<RestingBackend> = left.collect();
        self.ledger.release(&left);
    }
}

fn update(
    ledger: &mut Ledger,
    cluster: &Cluster,
    name: &ServiceName,
    now: Duration,
) -> Result<(), desired::Refusal> {
    let slices: Vec<_> = cluster
        .slices
        .values()
        .filter(|slice| slice.service == *name)
        .collect();
    let service = cluster.services.get(name);
    let wanted = service
        .map(|it| desired::services(it, &slices, &place()))
        .unwrap_or_default();
    let addresses = service.map(|it| desired::addresses(it, &place()));
    ledger.update(name, wanted, &addresses.unwrap_or_default(), now)
}

/// As long as an id is not free, whoever refers to it finds the same backend there.
fn check_backends<F: MapFamily>(old: &MapContents, new: &MapContents) -> Result<(), TestCaseError> {
    let who = |entry: &BackendEntry<F>| BackendEntry { state: 0, ..*entry };
    for (id, before) in &F::of(old).backends {
        let Some(after) = F::of(new).backends.get(id) else {
            continue;
        };
        let freed = before.state() == BackendState::Free || after.state() == BackendState::Free;
        let renewed = after.generation > before.generation;
        prop_assert!(
            freed || renewed || who(before) == who(after),
            "{before:?} -> {after:?}"
        );
        prop_assert!(
            after.generation >= before.generation,
            "{before:?} -> {after:?}"
        );
    }
    Ok(())
}

/// Batches of steps, the pauses after them in milliseconds, and which backends a sweep then releases.
fn story() -> impl Strategy<Value = Vec<(Vec<Step>, u64, u8)>> {
    (
        batches(),
        proptest::collection::vec((0..1500_u64, any::<u8>()), 12),
    )
        .prop_map(|(batches, pauses)| {
            let steps = batches.into_iter().zip(pauses);
            steps
                .map(|(batch, (pause, sweep))| (batch, pause, sweep))
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_every_prefix_the_maps_are_fit_for_use_and_in_the_end_they_are_as_desired(story in story()) {
        let mut bench = Bench::new(Capacities::DECLARED);
        for (batch, pause, sweep) in story {
            let changes = bench.plan(&batch);
            bench.carry_out(&changes)?;
            prop_assert_eq!(answers(&bench.actual), Ok(bench.cluster.answers()));
            prop_assert_eq!(masquerading(&bench.actual), bench.cluster.masquerading());
            // The maps are what the changes were noted to have made of them: nothing else was written.
            prop_assert_eq!(&bench.maps.contents.v4, &bench.actual.v4);
            prop_assert_eq!(&bench.maps.contents.v6, &bench.actual.v6);
            let mut everything = bench.ledger.everything();
            everything.extend(desired::Scope::of(&bench.actual));
            let again = plan(&bench.actual, &bench.ledger.contents(&everything), &everything);
            prop_assert_eq!(again, vec![], "nothing is left to do");
            bench.sweep(sweep);
            bench.now += Duration::from_millis(pause);
        }
    }

    #[test]
    fn small_maps_are_never_overfilled_and_services_are_served_whole_or_not_at_all(story in story()) {
        let tight = Capacities { frontends: 6, services: 6, slots: 12, backends: 8, source_ranges: 3 };
        let mut bench = Bench::new(tight);
        for (batch, pause, sweep) in story {
            let earlier = answers(&bench.actual).unwrap_or_default();
            let changes = bench.plan(&batch);
            bench.carry_out(&changes)?;
            let wanted = bench.cluster.answers();
            for (frontend, members) in answers(&bench.actual).map_err(TestCaseError::fail)? {
                let allowed = &wanted.get(&frontend).cloned().unwrap_or_default();
                let owner = bench.ledger.owner(&frontend).map(|key| key.port.service.clone());
                if owner.is_some_and(|owner| bench.refused.contains(&owner)) {
                    prop_assert!(earlier.contains_key(&frontend), "{frontend} is new and half served");
                } else {
                    // With a dispute the refused rival of a frontend counts as not there.
                    prop_assert!(members == *allowed || !bench.refused.is_empty());
                }
            }
            if bench.refused.is_empty() {
                prop_assert_eq!(answers(&bench.actual), Ok(wanted));
            }
            bench.sweep(sweep);
            bench.now += Duration::from_millis(pause);
        }
    }

    #[test]
    fn what_is_reached_step_by_step_equals_what_is_reached_at_once(story in story()) {
        let mut bench = Bench::new(Capacities::DECLARED);
        for (batch, pause, sweep) in story {
            let changes = bench.plan(&batch);
            bench.carry_out(&changes)?;
            bench.sweep(sweep);
            bench.now += Duration::from_millis(pause);
        }
        let mut whole = Ledger::new(limits(Capacities::DECLARED));
        for name in bench.cluster.services.keys() {
            prop_assert!(update(&mut whole, &bench.cluster, name, Duration::ZERO).is_ok());
        }
        let whole = whole.contents(&whole.everything());
        prop_assert_eq!(answers(&bench.actual), answers(&whole));
    }

    #[test]
    fn a_restarted_agent_takes_over_what_is_there(story in story()) {
        let mut bench = Bench::new(Capacities::DECLARED);
        for (batch, pause, sweep) in story {
            let changes = bench.plan(&batch);
            bench.carry_out(&changes)?;
            bench.sweep(sweep);
            bench.now += Duration::from_millis(pause);
        }
        // A process takes longer to start than a packet to pass: regions that rested are free.
        bench.now += REST;
        let actual = lb_userspace::maps::read_contents(&bench.maps).unwrap();
        let mut ledger = Ledger::restore(limits(bench.maps.capacities()), &actual);
        for name in bench.cluster.services.keys() {
            prop_assert!(update(&mut ledger, &bench.cluster, name, bench.now).is_ok());
        }
        ledger.forget_restored();
        let mut scope = ledger.everything();
        scope.extend(desired::Scope::of(&actual));
        let changes = plan(&actual, &ledger.contents(&scope), &scope);
        // What a service that disputes a frontend had before has no name in the maps: it gets new ids, others do not.
        if bench.ledger.disputes().is_empty() {
            let frontends = changes.iter().filter(|it| touches_traffic(it, &actual)).collect::<Vec<_>>();
            prop_assert!(frontends.is_empty(), "{frontends:?}");
        }
        bench.ledger = ledger;
        bench.actual = actual;
        bench.carry_out(&changes)?;
        prop_assert_eq!(answers(&bench.actual), Ok(bench.cluster.answers()));
    }
}

/// Whether a change to these contents is felt by new connections. (That frontends may have moved while no agent ran, every
/// restart says; and that a service has no sibling any more is the affair of flows that were the sibling's.)
fn touches_traffic(change: &Change, before: &MapContents) -> bool {
    match change {
        Change::PutFrontendEpoch(_)
        | Change::V4(FamilyChange::RetireBackend(..))
        | Change::V6(FamilyChange::RetireBackend(..)) => false,
        Change::PutService(id, entry) => before.services.get(id).is_none_or(|earlier| {
            let sibling = earlier.sibling;
            *earlier != ServiceEntry { sibling, ..*entry }
        }),
        Change::V4(_)
        | Change::V6(_)
        | Change::PutNetworks(_)
        | Change::PutSlots(..)
        | Change::RemoveService(_) => true,
    }
}

/// The checker itself must be able to say no.
#[test]
fn a_plan_in_another_order_is_found_out() {
    let mut runner = TestRunner::deterministic();
    let mut found = 0;
    for _ in 0..20 {
        let mut bench = Bench::new(Capacities::DECLARED);
        let tree = story().new_tree(&mut runner).unwrap();
        for (batch, _, _) in tree.current() {
            let mut changes = bench.plan(&batch);
            changes.reverse();
            if bench.carry_out(&changes).is_err() {
                found += 1;
                break;
            }
        }
    }
    assert!(
        found > 10,
        "plans backwards must be noticed: {found} of 20 were"
    );
}
