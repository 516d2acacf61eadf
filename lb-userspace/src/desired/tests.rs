mod leaving;

use std::{collections::BTreeSet, time::Duration};

use lb_common::BackendState;

use super::*;
use crate::{
    maps::{Capacities, MapContents, MapName},
    model::{
        Endpoint, EndpointPort, Hints, ServiceName, ServicePort, ServiceType, SliceName,
        TrafficPolicy,
    },
    reconcile::{apply::note, plan},
};

const SECOND: Duration = Duration::from_secs(1);

/// Address, ready, serving, terminating.
type State = (&'static str, bool, bool, bool);

fn endpoint((address, ready, serving, terminating): State, uid: &str) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        ready,
        serving,
        terminating,
        node: None,
        hints: Hints::default(),
        target: (!uid.is_empty()).then(|| Target {
            name: uid.to_owned(),
            uid: uid.to_owned(),
        }),
    }
}

pub(super) fn service(name: &str, address: &str) -> Service {
    Service {
        uid: String::new(),
        name: ServiceName::new("default", name),
        created: Created::Unknown,
        cluster_ips: vec![address.parse().unwrap()],
        source_ranges: None,
        balancer_ips: Vec::new(),
        external_ips: Vec::new(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        not_served: None,
        kind: ServiceType::ClusterIp,
        affinity_seconds: 0,
        health_check_port: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        warnings: Vec::new(),
    }
}

fn slice(service: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        name: SliceName::new("default", format!("{service}-1")),
        service: ServiceName::new("default", service),
        family: Family::V4,
        ports: vec![EndpointPort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints,
        warnings: Vec::new(),
    }
}

/// A Service `name` at 10.96.0.1 with ready endpoints: address and uid.
fn wanted(name: &str, endpoints: &[(&'static str, &str)]) -> Vec<DesiredService> {
    let ready = |(address, uid): &(&'static str, &str)| endpoint((address, true, true, false), uid);
    let slice = slice(name, endpoints.iter().map(ready).collect());
    services(
        &service(name, &format!("10.96.0.{}", name.len())),
        &[&slice],
        &Place::default(),
    )
}

pub(super) fn ledger(capacities: Capacities) -> Ledger {
    Ledger::new(Limits {
        capacities,
        region_rest: 2 * SECOND,
        gone_grace: 10 * SECOND,
    })
}

fn update(ledger: &mut Ledger, name: &str, wanted: Vec<DesiredService>) -> Result<(), Refusal> {
    ledger.update(
        &ServiceName::new("default", name),
        wanted,
        &Addresses::new(),
        Duration::ZERO,
    )
}

fn states(ledger: &Ledger) -> Vec<(u32, String, BackendState)> {
    let backends = ledger.backends(Family::V4);
    backends
        .map(|(id, it)| (id, it.address.ip().to_string(), it.state))
        .collect()
}

#[test]
fn the_ready_serve_and_without_them_those_that_are_ending_but_still_answer() {
    let ready = ("10.0.0.1", true, true, false);
    let unready = ("10.0.0.2", false, false, false);
    let ending = ("10.0.0.3", false, true, true);
    let ended = ("10.0.0.4", false, false, true);
    let cases: [(&[State], &[&str]); 5] = [
        (&[ready, unready, ending, ended], &["10.0.0.1"]),
        (&[unready, ending, ended], &["10.0.0.3"]),
        (&[unready, ended], &[]),
        (&[], &[]),
        (&[ready, ready], &["10.0.0.1"]),
    ];
    for (endpoints, expected) in cases {
        let slice = slice(
            "web",
            endpoints.iter().map(|it| endpoint(*it, "")).collect(),
        );
        let desired = services(&service("web", "10.96.0.1"), &[&slice], &Place::default());
        let members: Vec<String> = desired[0]
            .backends
            .iter()
            .map(|it| it.address.ip().to_string())
            .collect();
        assert_eq!(members, expected, "{endpoints:?}");
    }
}

#[test]
fn of_those_who_want_a_frontend_the_oldest_has_it() {
    let wanted = |name: &str, created| {
        let service = Service {
            created,
            ..service(name, "10.96.0.1")
        };
        services(&service, &[], &Place::default())
    };
    let mut ledger = ledger(Capacities::DECLARED);
    let steps: [(&str, Option<Created>, &str, &str); 8] = [
        ("b", Some(Created::Unknown), "b", ""),
        (
            "a",
            Some(Created::Unknown),
            "a",
            "b: a has it, its name comes first",
        ),
        ("b", Some(Created::At(2)), "b", "a: b has it, it is older"),
        (
            "c",
            Some(Created::At(1)),
            "c",
            "a: c has it, it is older; b: c has it, it is older",
        ),
        (
            "a",
            Some(Created::At(1)),
            "a",
            "b: a has it, it is older; c: a has it, its name comes first",
        ),
        ("a", None, "c", "b: c has it, it is older"),
        // It was deleted and made anew, and nobody saw the deletion.
        ("c", Some(Created::At(3)), "b", "c: b has it, it is older"),
        ("c", None, "b", ""),
    ];
    for (name, created, owner, disputes) in steps {
        let wanted = created.map_or_else(Vec::new, |created| wanted(name, created));
        update(&mut ledger, name, wanted).unwrap();
        let frontend = "10.96.0.1:80/tcp";
        let served = ledger.served().filter(|it| !it.frontends.is_empty());
        let owners: Vec<_> = served.map(|it| it.key.port.service.name.as_str()).collect();
        assert_eq!(owners, [owner], "{name} {created:?}");
        let told = ledger.disputes().into_iter().map(|it| {
            let problem = it
                .warning
                .problem
                .replace(&format!("wants {frontend}, which default/"), "");
            let loser = it.warning.subject.replace("Service default/", "");
            format!("{loser}: {}", problem.replace(" has: ", " has it, "))
        });
        assert_eq!(
            told.collect::<Vec<_>>().join("; "),
            disputes,
            "{name} {created:?}"
        );
    }
}

#[test]
fn external_ips_are_served_unless_they_are_to_be_ignored() {
    let addresses = ["203.0.113.1", "198.51.100.1"].map(|it| it.parse::<IpAddr>().unwrap());
    let service = Service {
        balancer_ips: vec![addresses[0]],
        external_ips: addresses.to_vec(),
        ..service("web", "10.96.0.1")
    };
    for (ignore_external_ips, expected) in [(false, &addresses[..]), (true, &addresses[..1])] {
        let place = Place {
            ignore_external_ips,
            ..Place::default()
        };
        let cluster_ip = service.cluster_ips[0];
        let frontends = services(&service, &[], &place)[0].frontends.clone();
        let dialled: BTreeSet<IpAddr> = frontends.keys().map(|it| it.address).collect();
        let expected = expected.iter().chain([&cluster_ip]).copied().collect();
        assert_eq!(dialled, expected, "ignored: {ignore_external_ips}");
    }
}

#[test]
fn a_slices_port_belongs_to_the_services_port_of_its_name_and_protocol() {
    let mut slice = slice("web", vec![endpoint(("10.0.0.1", true, true, false), "")]);
    slice.ports[0].protocol = Protocol::Udp;
    assert!(
        services(&service("web", "10.96.0.1"), &[&slice], &Place::default())[0]
            .backends
            .is_empty()
    );
}

#[test]
fn an_id_is_released_only_if_it_has_rested_since_the_sweep_began() {
    let mut ledger = ledger(Capacities::DECLARED);
    let (one, none) = (wanted("a", &[("10.0.0.1", "one")]), wanted("a", &[]));
    update(&mut ledger, "a", one.clone()).unwrap();
    update(&mut ledger, "a", none.clone()).unwrap();
    let swept: Vec<_> = ledger.resting().collect();
    update(&mut ledger, "a", one).unwrap();
    ledger.release(&swept);
    assert_eq!(states(&ledger).len(), 1, "it takes new flows");
    update(&mut ledger, "a", none).unwrap();
    ledger.release(&swept);
    assert_eq!(states(&ledger).len(), 1, "it took new flows in between");
    let swept: Vec<_> = ledger.resting().collect();
    ledger.release(&swept);
    assert_eq!(states(&ledger), []);
    update(&mut ledger, "a", wanted("a", &[("10.0.0.9", "other")])).unwrap();
    let backend = ledger.backend(Family::V4, 1).unwrap();
    assert_eq!((backend.generation, backend.address.port()), (2, 8080));
}

#[test]
fn a_service_that_outgrows_the_maps_keeps_what_fitted_without_those_who_left() {
    let mut ledger = ledger(Capacities {
        backends: 4,
        ..Capacities::DECLARED
    });
    let three = [("10.0.0.1", "a"), ("10.0.0.2", "b"), ("10.0.0.3", "c")];
    update(&mut ledger, "a", wanted("a", &three)).unwrap();
    let grown = [
        ("10.0.0.2", "b"),
        ("10.0.0.3", "c"),
        ("10.0.0.4", "d"),
        ("10.0.0.5", "e"),
    ];
    let refusal = update(&mut ledger, "a", wanted("a", &grown)).unwrap_err();
    assert_eq!(
        (refusal.map, refusal.needed, refusal.free),
        (MapName::BackendsV4, 2, 0)
    );
    assert!(refusal.keeps_earlier);
    let served = ledger.served().next().unwrap();
    assert_eq!(served.slots, [2, 3]);
}

#[test]
fn without_a_free_region_a_list_becomes_shorter_in_its_place() {
    let mut ledger = ledger(Capacities {
        slots: 3,
        ..Capacities::DECLARED
    });
    let three = [("10.0.0.1", "a"), ("10.0.0.2", "b"), ("10.0.0.3", "c")];
    update(&mut ledger, "a", wanted("a", &three)).unwrap();
    let mut actual = MapContents::default();
    carry_out(&mut ledger, &mut actual);
    let two = [("10.0.0.2", "b"), ("10.0.0.3", "c")];
    let refusal = update(&mut ledger, "a", wanted("a", &two)).unwrap_err();
    assert_eq!(refusal.map, MapName::Slots);
    carry_out(&mut ledger, &mut actual);
    let region = actual.services[&1].slots;
    assert_eq!((region.start(), region.length()), (0, 2));
    let slots: Vec<u32> = (0..2)
        .map(|index| actual.slots[&index].backend_id)
        .collect();
    assert_eq!(slots, [2, 3]);
}

fn carry_out(ledger: &mut Ledger, actual: &mut MapContents) {
    let scope = ledger.take_touched();
    for change in plan(actual, &ledger.contents(&scope), &scope) {
        note(&change, actual);
    }
}
