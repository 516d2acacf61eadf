//! Kubernetes' rules as a table: policy, endpoints, who takes new flows.
use super::*;
use crate::model::{
    Hints,
    TrafficPolicy::{Cluster, Local},
};

/// An endpoint as the table writes it: its node, `+` ready, `~` terminating but serving or `-` neither, and its hints,
/// nodes before zones: `a+`, `b~`, `a- >a`, `b+ >@x`.
fn endpoint(text: &str) -> (Fitness, Endpoint) {
    let (state, hints) = text.split_once(" >").unwrap_or((text, ""));
    let (zones, nodes): (Vec<&str>, Vec<&str>) = hints
        .split_terminator(',')
        .partition(|hint| hint.starts_with('@'));
    let fitness = match state.get(1..) {
        Some("+") => Fitness::Ready,
        Some("~") => Fitness::LastResort,
        _ => Fitness::Unfit,
    };
    let endpoint = Endpoint {
        address: IpAddr::from([10, 0, 0, 1]),
        ready: fitness == Fitness::Ready,
        serving: fitness != Fitness::Unfit,
        terminating: fitness == Fitness::LastResort,
        node: Some(state[..1].to_owned()),
        hints: Hints {
            nodes: nodes.into_iter().map(str::to_owned).collect(),
            zones: zones.iter().map(|zone| zone[1..].to_owned()).collect(),
        },
        target: None,
    };
    (fitness, endpoint)
}

/// Clients are on node a, in zone x.
fn place() -> Place {
    Place {
        node: "a".to_owned(),
        zone: Some("x".to_owned()),
        ..Place::default()
    }
}

fn chosen(policy: TrafficPolicy, endpoints: &[&str], place: &Place) -> Vec<usize> {
    let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(fitness, it)| (*fitness, it))
        .collect();
    let eligible = eligible(policy, &endpoints, place);
    let numbered = eligible.into_iter().enumerate();
    numbered
        .filter(|(_, takes)| *takes)
        .map(|(number, _)| number)
        .collect()
}

#[test]
fn the_rules_of_policies_and_states() {
    let cases: [(&str, TrafficPolicy, &[&str], &[usize]); 11] = [
        (
            "all that are ready",
            Cluster,
            &["a+", "b+", "b-", "b~"],
            &[0, 1],
        ),
        (
            "nobody ready: who still serves",
            Cluster,
            &["a-", "b~", "a~"],
            &[1, 2],
        ),
        ("nobody at all", Cluster, &["a-", "b-"], &[]),
        ("no endpoints", Cluster, &[], &[]),
        ("only the node's own", Local, &["a+", "b+", "a+"], &[0, 2]),
        (
            "none of its own, though others are ready",
            Local,
            &["b+", "b+"],
            &[],
        ),
        (
            "its own that still serve, though others are ready",
            Local,
            &["a~", "b+"],
            &[0],
        ),
        (
            "its own ready before its own ending",
            Local,
            &["a~", "a+"],
            &[1],
        ),
        (
            "others' ending ones are not its own",
            Local,
            &["b~", "a-"],
            &[],
        ),
        ("Local knows no hints", Local, &["a+ >b", "b+ >a"], &[0]),
        ("who neither is ready nor serves", Local, &["a-"], &[]),
    ];
    for (what, policy, endpoints, expected) in cases {
        assert_eq!(chosen(policy, endpoints, &place()), expected, "{what}");
    }
}

#[test]
fn the_rules_of_hints() {
    let cases: [(&str, &[&str], &[usize]); 13] = [
        ("meant for the zone", &["a+ >@x", "b+ >@y"], &[0]),
        (
            "meant for several zones",
            &["a+ >@x,@y", "b+ >@y,@x"],
            &[0, 1],
        ),
        (
            "one ready endpoint has no hint: no hint counts",
            &["a+ >@x", "b+"],
            &[0, 1],
        ),
        (
            "one that is not ready has no hint",
            &["a+ >@x", "b+ >@y", "b-"],
            &[0],
        ),
        (
            "one that is ending has no hint",
            &["a+ >@x", "b+ >@y", "b~"],
            &[0],
        ),
        (
            "nobody is meant for the zone",
            &["a+ >@y", "b+ >@z"],
            &[0, 1],
        ),
        ("only one that is not ready is", &["a- >@x", "b+ >@y"], &[1]),
        (
            "nobody is ready: hints do not count",
            &["a~ >@y", "b~ >@x"],
            &[0, 1],
        ),
        (
            "meant for the node, not for where it runs",
            &["b+ >a", "a+ >b"],
            &[0],
        ),
        ("the node before the zone", &["a+ >a,@y", "b+ >b,@x"], &[0]),
        (
            "nobody for the node: the zone",
            &["b+ >b,@x", "c+ >c,@y"],
            &[0],
        ),
        (
            "not all have nodes: the zone",
            &["a+ >a,@y", "b+ >@x"],
            &[1],
        ),
        ("neither holds", &["a+ >a", "b+ >@x"], &[0, 1]),
    ];
    for (what, endpoints, expected) in cases {
        assert_eq!(chosen(Cluster, endpoints, &place()), expected, "{what}");
    }
}

#[test]
fn without_a_zone_zones_say_nothing() {
    let nowhere = Place {
        zone: None,
        ..place()
    };
    assert_eq!(chosen(Cluster, &["a+ >@x", "b+ >@y"], &nowhere), [0, 1]);
    let unnamed = Place {
        zone: Some(String::new()),
        ..place()
    };
    assert_eq!(chosen(Cluster, &["a+ >@x", "b+ >@y"], &unnamed), [0, 1]);
}
