//! Objects as real clusters have them, each with one field replaced by something else.
use serde_json::{Value, json};

use super::*;

/// A Service with a field of each kind that the API server, controllers and users write.
fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "8c1f", "resourceVersion": "812", "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "web"},
            "annotations": {"a": "b"}, "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1"}],
            "managedFields": [{"manager": "kubectl", "time": "2026-01-02T03:04:05Z", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalIPs": ["192.0.2.7"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30080,
                       "appProtocol": "kubernetes.io/h2c"}],
            "selector": {"app": "web"}, "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster", "healthCheckNodePort": 32000,
            "loadBalancerSourceRanges": ["203.0.113.0/24"], "loadBalancerClass": "example.com/lb",
            "loadBalancerIP": "192.0.2.9", "allocateLoadBalancerNodePorts": true,
            "trafficDistribution": "PreferClose", "publishNotReadyAddresses": false, "externalName": "",
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": "192.0.2.8", "ipMode": "VIP", "hostname": "a.example",
                                          "ports": [{"port": 80, "protocol": "TCP"}]}]},
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z",
                            "observedGeneration": 1, "reason": "r", "message": "m"}],
        },
    })
}

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
                     "generateName": "web-", "managedFields": [{"time": "2026-01-02T03:04:05Z"}]},
        "endpoints": [{
            "addresses": ["10.244.1.2"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "hostname": "a", "nodeName": "n1", "zone": "z", "deprecatedTopology": {"a": "b"},
            "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop", "uid": "77", "fieldPath": "x",
                          "resourceVersion": "1", "apiVersion": "v1"},
            "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "n1"}]},
        }],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "h2c"}],
    })
}

/// The fields that are read: an object with a value of another type there is unreadable.
const READ: &[&str] = &[
    "/metadata",
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/uid",
    "/metadata/labels",
    "/spec",
    "/spec/type",
    "/spec/clusterIP",
    "/spec/clusterIPs",
    "/spec/externalIPs",
    "/spec/ports",
    "/spec/ports/0",
    "/spec/ports/0/name",
    "/spec/ports/0/port",
    "/spec/ports/0/protocol",
    "/spec/ports/0/targetPort",
    "/spec/ports/0/nodePort",
    "/spec/selector",
    "/spec/sessionAffinity",
    "/spec/sessionAffinityConfig",
    "/spec/sessionAffinityConfig/clientIP",
    "/spec/sessionAffinityConfig/clientIP/timeoutSeconds",
    "/spec/externalTrafficPolicy",
    "/spec/internalTrafficPolicy",
    "/spec/healthCheckNodePort",
    "/spec/loadBalancerSourceRanges",
    "/spec/trafficDistribution",
    "/spec/publishNotReadyAddresses",
    "/status",
    "/status/loadBalancer",
    "/status/loadBalancer/ingress",
    "/status/loadBalancer/ingress/0",
    "/status/loadBalancer/ingress/0/ip",
    "/status/loadBalancer/ingress/0/ipMode",
    "/addressType",
    "/endpoints",
    "/endpoints/0",
    "/endpoints/0/addresses",
    "/endpoints/0/conditions",
    "/endpoints/0/conditions/ready",
    "/endpoints/0/conditions/serving",
    "/endpoints/0/conditions/terminating",
    "/endpoints/0/nodeName",
    "/endpoints/0/targetRef",
    "/endpoints/0/targetRef/name",
    "/endpoints/0/targetRef/uid",
    "/endpoints/0/hints",
    "/endpoints/0/hints/forZones",
    "/endpoints/0/hints/forZones/0",
    "/endpoints/0/hints/forZones/0/name",
    "/endpoints/0/hints/forNodes",
    "/endpoints/0/hints/forNodes/0",
    "/endpoints/0/hints/forNodes/0/name",
    "/ports",
    "/ports/0",
    "/ports/0/name",
    "/ports/0/port",
    "/ports/0/protocol",
];
/// Items and values of lists and maps that are read.
const READ_WITHIN: &[&str] = &[
    "/metadata/labels/",
    "/spec/selector/",
    "/spec/clusterIPs/",
    "/spec/externalIPs/",
    "/spec/loadBalancerSourceRanges/",
    "/endpoints/0/addresses/",
];

fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, it)| (key.replace('/', "~1"), it))
            .collect(),
        Value::Array(items) => (0..).map(|it: usize| it.to_string()).zip(items).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (key, child) in children {
        let path = format!("{at}/{key}");
        paths(child, &path, found);
        found.push(path);
    }
}

fn check<T: Object + PartialEq>(object: &Value) {
    let expected: T = serde_json::from_value(object.clone()).unwrap();
    let mut all = Vec::new();
    paths(object, "", &mut all);
    let (mut ignored, mut read) = (0, 0);
    for path in all {
        let is_read =
            READ.contains(&path.as_str()) || READ_WITHIN.iter().any(|it| path.starts_with(it));
        for other in [
            json!(null),
            json!(7),
            json!([7]),
            json!({"seven": 7}),
            json!("7"),
        ] {
            let mut changed = object.clone();
            *changed.pointer_mut(&path).unwrap() = other.clone();
            let decoded = serde_json::from_value::<T>(changed);
            if is_read {
                assert!(
                    !other.is_null() || decoded.is_ok(),
                    "{path}: null is absent: {decoded:?}"
                );
                read += 1;
            } else if path != "/metadata/creationTimestamp" {
                assert_eq!(decoded.unwrap(), expected, "{path} = {other}");
                ignored += 1;
            }
        }
    }
    assert!(ignored > 50 && read > 50, "{ignored} ignored, {read} read");
}

#[test]
fn a_field_that_is_not_read_may_hold_any_value() {
    check::<Service>(&service());
    check::<EndpointSlice>(&slice());
}

#[test]
fn a_value_that_is_not_a_time_counts_as_absent() {
    for written in [json!(null), json!(7), json!([]), json!("yesterday")] {
        let mut object = service();
        object["metadata"]["creationTimestamp"] = written;
        let decoded: Service = serde_json::from_value(object).unwrap();
        assert_eq!(decoded.metadata.creation_timestamp, None);
    }
    let decoded: Service = serde_json::from_value(service()).unwrap();
    let written = decoded.metadata.creation_timestamp.unwrap();
    assert_eq!(written.to_string(), "2026-01-02T03:04:05Z");
}

#[test]
fn null_items_and_values_count_as_absent() {
    let mut object = service();
    object["spec"]["ports"] = json!([null, {"port": 81, "name": null}]);
    object["spec"]["selector"] = json!({"app": null, "tier": "front"});
    object["spec"]["clusterIPs"] = json!([null, "10.96.0.2"]);
    let decoded: Service = serde_json::from_value(object).unwrap();
    assert_eq!(decoded.spec.ports.len(), 1);
    assert_eq!(
        decoded.spec.selector,
        BTreeMap::from([("tier".to_owned(), "front".to_owned())])
    );
    assert_eq!(decoded.spec.cluster_ips, ["10.96.0.2"]);
}
