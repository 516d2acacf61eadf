use serde_json::json;

use super::*;

#[test]
fn short_and_old_forms_are_taken_as_if_they_were_written_out() {
    let ports = json!([{"port": 80}]);
    for (short, address) in [
        (json!({"clusterIP": "10.96.0.1"}), "10.96.0.1"),
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": []}),
            "10.96.0.1",
        ),
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": [""]}),
            "10.96.0.1",
        ),
        (
            json!({"clusterIP": "", "clusterIPs": ["fd00::1"]}),
            "fd00::1",
        ),
        (json!({"clusterIP": "10.96.0.1", "type": ""}), "10.96.0.1"),
    ] {
        let mut spec = short;
        spec["ports"] = ports.clone();
        let service = convert(&spec);
        let addresses = service.cluster_ips.iter().map(ToString::to_string);
        assert_eq!(addresses.collect::<Vec<_>>(), [address], "{spec}");
        assert_eq!(problems(&service), [""; 0], "{spec}");
        assert_eq!(service.kind, ServiceType::ClusterIp);
        let port = &service.ports[0];
        assert_eq!((&*port.name, port.protocol), ("", Protocol::Tcp));
    }
    for spec in [
        json!({"clusterIP": "None"}),
        json!({"clusterIPs": ["None"]}),
    ] {
        assert_eq!(convert(&spec).not_served, Some(NotServed::Headless));
    }
    let nothing = service(&objects::Service::default());
    assert_eq!(problems(&nothing).len(), 2, "no address and no port");
}

#[test]
fn odd_values_are_taken_as_far_as_possible_and_each_is_named() {
    let cases = [
        (
            json!({"type": "Gateway"}),
            "has the unknown type `Gateway`; it is served at all its addresses",
        ),
        (
            json!({"internalTrafficPolicy": "Nearby"}),
            "has the unknown internalTrafficPolicy `Nearby`; it counts as Cluster",
        ),
        (
            json!({"externalTrafficPolicy": "local"}),
            "has the unknown externalTrafficPolicy `local`; it counts as Cluster",
        ),
        (
            json!({"trafficDistribution": "PreferMoon"}),
            "has the unknown trafficDistribution `PreferMoon`; the hints of its slices count alone",
        ),
        (
            json!({"sessionAffinity": "Cookie"}),
            "has the unknown sessionAffinity `Cookie`; each connection may get another endpoint",
        ),
        (
            json!({"clusterIP": "010.96.000.1"}),
            "clusterIP 010.96.000.1 has leading zeros; it is read in decimal, as 10.96.0.1",
        ),
        (
            json!({"clusterIP": "::ffff:10.96.0.1"}),
            "clusterIP ::ffff:10.96.0.1 is an IPv4 address written as IPv6; it is taken, as 10.96.0.1",
        ),
        (
            json!({"externalIPs": ["127.0.0.1"]}),
            "externalIP 127.0.0.1 is a loopback address; it is left out",
        ),
        (
            json!({"externalIPs": ["2001:db8::1"]}),
            "externalIP 2001:db8::1 is IPv6, and the Service has no IPv6 clusterIP; it is left out",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 8080}]}),
            "its port has nodePort 8080, though it is of type ClusterIP; the nodePort is served, as by kube-proxy",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80_000}]}),
            "the nodePort of its port is 80000; it is served at no node port",
        ),
    ];
    for (more, problem) in cases {
        let mut spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
        let changed = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(changed);
        let service = convert(&spec);
        assert_eq!(problems(&service), [problem]);
        assert_eq!(service.cluster_ips[0].to_string(), "10.96.0.1", "{spec}");
        assert_eq!(service.ports.len(), 1, "{spec}");
    }
    // Of load balancers those count that are said to leave packets as they are.
    let object = json!({"metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.1", "type": "LoadBalancer", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "Tunnel"}, {"ip": "203.0.113.2"}]}}});
    let service = service(&serde_json::from_value(object).unwrap());
    assert_eq!(
        problems(&service),
        [
            "has the load balancer address 203.0.113.1 with the unknown ipMode `Tunnel`; it is left out"
        ]
    );
    assert_eq!(service.balancer_ips.len(), 1);
}

#[test]
fn node_ports_outside_the_usual_range_and_fields_nobody_knows_are_nothing_special() {
    for node_port in [1, 80, 29_999, 32_768, 65_535] {
        let service = convert(
            &json!({"clusterIP": "10.96.0.1", "type": "NodePort", "colour": "green",
            "ports": [{"port": 80, "nodePort": node_port, "shape": {"round": true}}]}),
        );
        assert_eq!(service.ports[0].node_port.map(i32::from), Some(node_port));
        assert_eq!(problems(&service), [""; 0]);
    }
}

#[test]
fn a_node_port_that_two_ports_of_a_service_have_is_the_first_ones() {
    let service = convert(
        &json!({"clusterIP": "10.96.0.1", "type": "NodePort", "ports": [
            {"name": "a", "port": 80, "nodePort": 30080},
            {"name": "b", "port": 81, "nodePort": 30080},
            {"name": "c", "port": 82, "nodePort": 30080, "protocol": "UDP"},
        ]}),
    );
    let node_ports: Vec<_> = service.ports.iter().map(|it| it.node_port).collect();
    assert_eq!(node_ports, [Some(30080), None, Some(30080)]);
    assert_eq!(
        problems(&service),
        [
            "port `b` has nodePort 30080/tcp, which another port of the Service has; it is left out here"
        ]
    );
}
