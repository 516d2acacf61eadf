use serde_json::json;

use super::*;

#[path = "service_bad_input.rs"]
mod bad_input;

fn convert(spec: &serde_json::Value) -> Service {
    let object = json!({"metadata": {"name": "web"}, "spec": spec});
    service(&serde_json::from_value(object).unwrap())
}

fn problems(service: &Service) -> Vec<&str> {
    service
        .warnings
        .iter()
        .map(|warning| warning.problem.as_str())
        .collect()
}

#[test]
fn a_plain_service_has_its_addresses_and_ports_and_no_warning() {
    let service = convert(&json!({
        "clusterIPs": ["10.96.0.1", "fd00::1"],
        "ports": [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    }));
    assert_eq!(service.name.to_string(), "default/web");
    assert_eq!(service.cluster_ips.len(), 2);
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (port.port, port.protocol))
        .collect();
    assert_eq!(ports, [(80, Protocol::Tcp), (53, Protocol::Udp)]);
    assert!(service.warnings.is_empty() && service.not_served.is_none());
}

#[test]
fn one_bad_port_does_not_take_the_others_down() {
    let bad = [
        (
            json!({"name": "b", "port": 0}),
            "port `b` is 0; the port is left out",
        ),
        (
            json!({"name": "b", "port": 70000}),
            "port `b` is 70000; the port is left out",
        ),
        (
            json!({"name": "b", "port": -1}),
            "port `b` is -1; the port is left out",
        ),
        (
            json!({"name": "b", "port": 9, "protocol": "tcp"}),
            "port `b` has the unknown protocol `tcp`; the port is left out",
        ),
        (
            json!({"name": "a", "port": 9}),
            "port `a` (9/tcp) is there twice; the second one is left out",
        ),
        (
            json!({"name": "b", "port": 80}),
            "port `b` (80/tcp) is there twice; the second one is left out",
        ),
    ];
    for (port, problem) in bad {
        let service =
            convert(&json!({"clusterIP": "10.96.0.1", "ports": [{"name": "a", "port": 80}, port]}));
        assert_eq!(service.ports.len(), 1, "{problem}");
        assert_eq!(problems(&service), [problem]);
    }
}

#[test]
fn what_nobody_could_dial_is_said() {
    let cases = [
        (
            json!({"clusterIP": "10.96.0.1"}),
            "has no ports; it is not served",
        ),
        (
            json!({"ports": [{"port": 80}]}),
            "has no clusterIP, so nobody can dial it; it is not served",
        ),
        (
            json!({"clusterIP": "10.96.0.300", "ports": [{"port": 80}]}),
            "clusterIP `10.96.0.300` is no IP address; it is left out",
        ),
        (
            json!({"clusterIP": "127.0.0.1", "ports": [{"port": 80}]}),
            "clusterIP 127.0.0.1 is a loopback address; it is left out",
        ),
        (
            json!({"clusterIPs": ["10.96.0.1", "10.96.0.2"], "ports": [{"port": 80}]}),
            "has a second IPv4 clusterIP, 10.96.0.2; it is left out",
        ),
    ];
    for (spec, problem) in cases {
        assert_eq!(problems(&convert(&spec)), [problem]);
    }
}

#[test]
fn who_may_dial_a_load_balancer_is_taken_as_written_and_what_is_no_prefix_lets_nobody_in() {
    let cases = [
        (json!(null), None, 0),
        (json!([]), None, 0),
        (
            json!(["192.0.2.7/24", " 2001:db8::/32 "]),
            Some("192.0.2.0/24 2001:db8::/32"),
            0,
        ),
        (json!(["192.0.2.0/24", "home"]), Some("192.0.2.0/24"), 1),
        (json!(["192.0.2.1"]), Some(""), 1),
    ];
    for (ranges, expected, warnings) in cases {
        let service = convert(
            &json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}],
            "loadBalancerSourceRanges": ranges}),
        );
        let taken = service.source_ranges.as_ref().map(|ranges| {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            ranges.join(" ")
        });
        assert_eq!(taken.as_deref(), expected, "{ranges}");
        assert_eq!(problems(&service).len(), warnings, "{ranges}");
    }
}

#[test]
fn what_is_the_default_or_served_is_no_reason_for_a_warning() {
    let served = convert(&json!({
        "type": "NodePort", "externalTrafficPolicy": "Local", "clusterIP": "10.96.0.1", "ports": [{"port": 80}],
        "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local",
        "trafficDistribution": "PreferClose", "externalIPs": ["192.0.2.1"],
    }));
    assert_eq!(problems(&served), [""; 0]);
}

#[test]
fn the_outside_reaches_load_balancers_that_pass_packets_on_and_external_ips() {
    let ingress = json!([
        {"ip": "203.0.113.1"},
        {"ip": "203.0.113.2", "ipMode": "VIP"},
        {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"ip": ""},
        {"hostname": "lb.example.org"},
        {"ip": "2001:db8::1"},
    ]);
    let of = |kind: &str, more: &serde_json::Value| {
        let mut spec = json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "type": kind, "externalIPs": ["198.51.100.1", "203.0.113.1"],
            "ports": [{"port": 80, "nodePort": 30080}]});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let object = json!({"metadata": {"name": "web"}, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
        let service = service(&serde_json::from_value(object).unwrap());
        let addresses = service.balancer_ips.iter().chain(&service.external_ips);
        let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
        (
            addresses,
            service.ports[0].node_port,
            service.external_policy,
            problems(&service).len(),
        )
    };
    let (cluster, local) = (TrafficPolicy::Cluster, TrafficPolicy::Local);
    let external = ["198.51.100.1", "203.0.113.1"];
    let all = [
        &["203.0.113.1", "203.0.113.2", "2001:db8::1"],
        &external[..],
    ]
    .concat();
    let nothing = json!({});
    let is =
        |addresses: &[&str]| -> Vec<String> { addresses.iter().map(ToString::to_string).collect() };
    assert_eq!(
        of("LoadBalancer", &nothing),
        (is(&all), Some(30080), cluster, 0)
    );
    assert_eq!(
        of("NodePort", &nothing),
        (is(&all), Some(30080), cluster, 0)
    );
    // As for kube-proxy, the type decides nothing.
    assert_eq!(
        of("ClusterIP", &nothing),
        (is(&all), Some(30080), cluster, 1)
    );
    let policy = json!({"externalTrafficPolicy": "Local"});
    assert_eq!(
        of("LoadBalancer", &policy),
        (is(&all), Some(30080), local, 0)
    );
}

#[test]
fn services_that_are_not_ours_have_a_reason_and_no_warning() {
    let headless = convert(&json!({"clusterIP": "None", "ports": []}));
    let external = convert(&json!({"type": "ExternalName", "externalName": "example.org"}));
    let object = json!({
        "metadata": {"name": "web", "labels": {PROXY_NAME_LABEL: "other"}},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    let other = service(&serde_json::from_value(object).unwrap());
    let object = json!({
        "metadata": {"name": "web", "labels": {HEADLESS_LABEL: ""}},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    let labelled = service(&serde_json::from_value(object).unwrap());
    assert_eq!(labelled.not_served, Some(NotServed::Headless));
    let reasons = [&headless, &external, &other].map(|service| service.not_served);
    let expected = [
        NotServed::Headless,
        NotServed::ExternalName,
        NotServed::OtherProxy,
    ];
    assert_eq!(reasons, expected.map(Some));
    assert!(
        [headless, external, other]
            .iter()
            .all(|service| service.warnings.is_empty())
    );
}

#[test]
fn a_port_for_health_checks_counts_with_a_load_balancer_and_the_policy_local() {
    for (kind, policy, port, expected, complaints) in [
        ("LoadBalancer", "Local", 32_000, Some(32_000), 0),
        ("LoadBalancer", "Cluster", 32_000, None, 0),
        ("NodePort", "Local", 32_000, None, 0),
        ("LoadBalancer", "Local", 0, None, 0),
        ("LoadBalancer", "Local", 70_000, None, 1),
    ] {
        let object = json!({"metadata": {"name": "web"}, "spec": {
            "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port,
            "clusterIP": "10.96.0.1", "ports": [{"port": 80}],
        }});
        let service = service(&serde_json::from_value(object).unwrap());
        assert_eq!(
            service.health_check_port, expected,
            "{kind} {policy} {port}"
        );
        assert_eq!(
            problems(&service).len(),
            complaints,
            "{kind} {policy} {port}"
        );
    }
}

#[test]
fn clients_stay_as_long_as_the_service_says_if_it_says_so_rightly_else_three_hours() {
    let timeout = |seconds: i64| json!({"clientIP": {"timeoutSeconds": seconds}});
    let bad = |seconds: i64| {
        Some(format!(
            "has the sessionAffinity timeout {seconds} s; it gets the default, 10800 s"
        ))
    };
    let cases = [
        (json!({}), 0, None),
        (json!({"sessionAffinity": "None"}), 0, None),
        (json!({"sessionAffinity": ""}), 0, None),
        (
            json!({"sessionAffinity": "None", "sessionAffinityConfig": timeout(5)}),
            0,
            None,
        ),
        (json!({"sessionAffinity": "ClientIP"}), 10_800, None),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {}}),
            10_800,
            None,
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {}}}),
            10_800,
            None,
        ),
    ];
    let written = [
        (1, 1, None),
        (86_400, 86_400, None),
        (0, 10_800, bad(0)),
        (-1, 10_800, bad(-1)),
        (86_401, 10_800, bad(86_401)),
        (i64::from(i32::MAX), 10_800, bad(i64::from(i32::MAX))),
    ];
    let written = written.map(|(seconds, expected, problem)| {
        let spec =
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": timeout(seconds)});
        (spec, expected, problem)
    });
    for (mut spec, expected, problem) in cases.into_iter().chain(written) {
        spec["clusterIP"] = json!("10.96.0.1");
        spec["ports"] = json!([{"port": 80}]);
        let service = convert(&spec);
        assert_eq!(service.affinity_seconds, expected, "{spec}");
        assert_eq!(problems(&service), Vec::from_iter(problem), "{spec}");
    }
}
