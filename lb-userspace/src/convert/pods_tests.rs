use serde_json::{Value, json};

use super::*;

fn pod(name: &str, change: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}
        ]},
        "status": {"podIP": "10.0.0.1", "phase": "Running"},
    });
    merge(&mut pod, change);
    serde_json::from_value(pod).unwrap()
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn service(spec: &Value) -> Service {
    let mut object = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    merge(&mut object["spec"], spec);
    serde_json::from_value(object).unwrap()
}

/// The endpoints that a single pod becomes: address, ready, serving, terminating.
fn states(change: &Value) -> Vec<(String, bool, bool, bool)> {
    let slices = select(&service(&json!({})), &[&pod("a", change)]);
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints
        .map(|it| (it.address.to_string(), it.ready, it.serving, it.terminating))
        .collect()
}

#[test]
fn a_pod_is_selected_by_its_labels_namespace_phase_and_address() {
    let ready = vec![("10.0.0.1".to_owned(), true, true, false)];
    let selected = [
        json!({}),
        json!({"metadata": {"labels": {"tier": "front"}}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    ];
    for change in selected {
        assert_eq!(states(&change), ready, "{change}");
    }
    let left_out = [
        json!({"metadata": {"labels": {"app": "shop"}}}),
        json!({"metadata": {"labels": null}}),
        json!({"metadata": {"namespace": "other"}}),
        json!({"status": {"phase": "Succeeded"}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"status": {"podIP": null}}),
    ];
    for change in left_out {
        assert_eq!(states(&change), [], "{change}");
    }
}

#[test]
fn readiness_and_termination_make_the_conditions_of_the_endpoint() {
    let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    let not_ready = json!({"conditions": [{"type": "Ready", "status": "False"}]});
    let no_ready = json!({"conditions": [{"type": "Initialized", "status": "True"}]});
    let cases = [
        (json!({"status": not_ready.clone()}), (false, false, false)),
        (json!({"status": no_ready}), (false, false, false)),
        (json!({"metadata": deleted.clone()}), (false, true, true)),
        (
            json!({"metadata": deleted, "status": not_ready}),
            (false, false, true),
        ),
    ];
    for (change, (ready, serving, terminating)) in cases {
        assert_eq!(
            states(&change),
            [("10.0.0.1".to_owned(), ready, serving, terminating)],
            "{change}"
        );
    }
}

#[test]
fn not_ready_addresses_are_published_where_the_service_wants_it() {
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let slices = select(
        &service(&json!({"publishNotReadyAddresses": true})),
        &[&pod("a", &not_ready)],
    );
    assert!(slices[0].endpoints[0].ready);
}

#[test]
fn a_named_target_port_is_looked_up_in_each_pod() {
    let other = json!({"spec": {"containers": [
        {"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}
    ]}, "status": {"podIP": "10.0.0.2"}});
    let udp = json!({"spec": {"containers": [
        {"name": "c", "ports": [{"name": "http", "containerPort": 53, "protocol": "UDP"}]}
    ]}, "status": {"podIP": "10.0.0.3"}});
    let sidecar = json!({"spec": {"containers": [], "initContainers": [
        {"name": "s", "restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 7070}]}
    ]}, "status": {"podIP": "10.0.0.4"}});
    let service = service(&json!({"ports": [{"port": 80, "targetPort": "http"}]}));
    let pods = [
        pod("a", &json!({})),
        pod("b", &other),
        pod("c", &udp),
        pod("d", &sidecar),
    ];
    let slices = select(&service, &pods.iter().collect::<Vec<_>>());
    let mut found: Vec<String> = Vec::new();
    for slice in &slices {
        for endpoint in &slice.endpoints {
            let ports: Vec<u16> = slice.ports.iter().map(|port| port.port).collect();
            found.push(format!("{} {ports:?}", endpoint.address));
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "10.0.0.1 [8080]",
            "10.0.0.2 [9090]",
            "10.0.0.3 []",
            "10.0.0.4 [7070]"
        ]
    );
    let warnings: Vec<&str> = slices
        .iter()
        .flat_map(|it| &it.warnings)
        .map(|it| it.problem.as_str())
        .collect();
    assert_eq!(
        warnings,
        ["targetPort `http` names no TCP port of Pod c; the Pod is left out for it"]
    );
}

#[test]
fn a_dual_stack_pod_has_an_endpoint_of_each_family() {
    let change = json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
    let slices = select(&service(&json!({})), &[&pod("a", &change)]);
    let families: Vec<Family> = slices.iter().map(|slice| slice.family).collect();
    assert_eq!(families, [Family::V4, Family::V6]);
}

#[test]
fn a_service_without_a_selector_selects_nobody() {
    let without = service(&json!({"selector": null}));
    let mut empty = service(&json!({}));
    empty.spec.selector = BTreeMap::new();
    for service in [without, empty] {
        assert!(select(&service, &[&pod("a", &json!({}))]).is_empty());
    }
}

#[test]
fn a_selector_that_means_nobody_and_a_pod_without_an_address_are_told_of() {
    let told = |service: &Service, pods: &[Pod]| {
        let slices = select(service, &pods.iter().collect::<Vec<_>>());
        assert!(slices.iter().all(|it| it.endpoints.is_empty()));
        let warnings = slices.into_iter().flat_map(|it| it.warnings);
        warnings.map(|it| it.problem).collect::<Vec<_>>()
    };
    let mut typo = service(&json!({}));
    let selector = &mut typo.spec.selector;
    selector.insert("app".to_owned(), "wbe".to_owned());
    let labels: Vec<_> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(
        told(&typo, &[pod("a", &json!({}))]),
        [format!(
            "its selector {} means none of the 1 Pods of namespace default",
            labels.join(",")
        )]
    );
    let mut elsewhere = pod("a", &json!({}));
    elsewhere.metadata.namespace = Some("shop".to_owned());
    let problems = told(&service(&json!({})), &[elsewhere]);
    assert!(
        problems[0].ends_with("; Pod shop/a has these labels"),
        "{problems:?}"
    );
    for (phase, expected) in [("Running", 1), ("Pending", 0)] {
        let status = json!({"status": {"phase": phase, "podIP": null}});
        let problems = told(&service(&json!({})), &[pod("a", &status)]);
        assert_eq!(problems.len(), expected, "{phase}: {problems:?}");
    }
}
