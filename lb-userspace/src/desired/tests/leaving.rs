//! What becomes of backends that take no new flows.
use super::*;

#[test]
fn who_comes_back_gets_the_same_id_and_another_pod_at_the_address_a_new_one() {
    let mut ledger = ledger(Capacities::DECLARED);
    update(&mut ledger, "a", wanted("a", &[("10.0.0.1", "one")])).unwrap();
    update(&mut ledger, "a", wanted("a", &[])).unwrap();
    assert_eq!(
        states(&ledger),
        [(1, "10.0.0.1".into(), BackendState::Left)]
    );
    update(&mut ledger, "a", wanted("a", &[("10.0.0.1", "one")])).unwrap();
    assert_eq!(
        states(&ledger),
        [(1, "10.0.0.1".into(), BackendState::Active)]
    );
    update(&mut ledger, "a", wanted("a", &[("10.0.0.1", "two")])).unwrap();
    let expected = [
        (1, "10.0.0.1".into(), BackendState::Left),
        (2, "10.0.0.1".into(), BackendState::Active),
    ];
    assert_eq!(states(&ledger), expected);
}

/// The states of the backends of Service "a" while its endpoints change, with the seconds that have passed.
fn states_of(changes: &[(u64, &[(State, &str)])]) -> Vec<Vec<BackendState>> {
    let mut ledger = ledger(Capacities::DECLARED);
    let mut seen = Vec::new();
    for (seconds, endpoints) in changes {
        let endpoints = endpoints.iter().map(|(state, uid)| endpoint(*state, uid));
        let slice = slice("a", endpoints.collect());
        let wanted = services(&service("a", "10.96.0.1"), &[&slice], &Place::default());
        let (name, now) = (
            ServiceName::new("default", "a"),
            Duration::from_secs(*seconds),
        );
        ledger
            .update(&name, wanted, &Addresses::new(), now)
            .unwrap();
        ledger.wake(now);
        seen.push(states(&ledger).into_iter().map(|it| it.2).collect());
    }
    seen
}

#[test]
fn a_backend_keeps_its_flows_while_it_serves_and_is_gone_when_its_own_pod_is() {
    use BackendState::{Active, Draining, Gone, Left};
    let other = ("10.0.0.2", true, true, false);
    let serving = ("10.0.0.1", false, true, true);
    let silent = ("10.0.0.1", false, false, true);
    let ready = ("10.0.0.1", true, true, false);
    // Terminating and serving, then only terminating, then absent for longer than the grace time.
    let states = states_of(&[
        (0, &[(ready, "one"), (other, "two")]),
        (1, &[(serving, "one"), (other, "two")]),
        (2, &[(silent, "one"), (other, "two")]),
        (3, &[(serving, "one"), (other, "two")]),
        (4, &[(other, "two")]),
        (15, &[(other, "two")]),
    ]);
    let of_first: Vec<BackendState> = states.iter().map(|it| it[0]).collect();
    assert_eq!(of_first, [Active, Draining, Left, Draining, Left, Gone]);
    // Another pod with the same address (of the host's network) says nothing of the first, present or absent.
    let neighbour = ("10.0.0.1", false, false, false);
    let states = states_of(&[
        (0, &[(ready, "one"), (other, "two")]),
        (1, &[(serving, "one"), (neighbour, "three"), (other, "two")]),
        (2, &[(serving, "one"), (other, "two")]),
        (15, &[(serving, "one"), (neighbour, "four"), (other, "two")]),
        (16, &[(neighbour, "four"), (other, "two")]),
        (27, &[(neighbour, "four"), (other, "two")]),
    ]);
    let of_first: Vec<BackendState> = states.iter().map(|it| it[0]).collect();
    assert_eq!(of_first, [Active, Draining, Draining, Draining, Left, Gone]);
}

#[test]
fn a_pod_at_the_address_of_another_services_pod_resets_nothing() {
    let mut ledger = ledger(Capacities::DECLARED);
    update(&mut ledger, "a", wanted("a", &[("10.0.0.1", "one")])).unwrap();
    update(&mut ledger, "a", wanted("a", &[])).unwrap();
    update(&mut ledger, "bb", wanted("bb", &[("10.0.0.1", "two")])).unwrap();
    assert_eq!(states(&ledger)[0].2, BackendState::Left);
}

#[test]
fn backends_keep_their_flows_when_a_service_port_changes_its_policy() {
    let mut ledger = ledger(Capacities::DECLARED);
    let place = Place {
        node: "here".to_owned(),
        ..Place::default()
    };
    let slice = |serving| {
        let mut endpoint = endpoint(("10.0.0.1", serving, serving, false), "one");
        endpoint.node = Some("here".to_owned());
        slice("a", vec![endpoint])
    };
    let with = |internal_policy, serving| {
        let service = Service {
            internal_policy,
            ..service("a", "10.96.0.1")
        };
        services(&service, &[&slice(serving)], &place)
    };
    update(&mut ledger, "a", with(TrafficPolicy::Cluster, true)).unwrap();
    update(&mut ledger, "a", with(TrafficPolicy::Local, true)).unwrap();
    let of = |ledger: &Ledger| -> Vec<BackendState> {
        states(ledger).into_iter().map(|it| it.2).collect()
    };
    assert_eq!(of(&ledger), [BackendState::Draining, BackendState::Active]);
    let contents = ledger.contents(&ledger.everything());
    assert_eq!(contents.services[&2].sibling, 1, "flows of the old id stay");
    update(&mut ledger, "a", with(TrafficPolicy::Local, false)).unwrap();
    assert_eq!(of(&ledger), [BackendState::Left, BackendState::Left]);
    update(&mut ledger, "a", Vec::new()).unwrap();
    assert_eq!(of(&ledger), [BackendState::Left, BackendState::Left]);
}
