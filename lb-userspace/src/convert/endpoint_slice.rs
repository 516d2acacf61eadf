//! `EndpointSlice`.
use std::net::IpAddr;

use crate::{
    convert::{Notes, object_name},
    model::{Endpoint, EndpointPort, EndpointSlice, Family, Hints, ServiceName, Target},
    objects,
};

/// Names the Service that a slice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Marks the slices of headless Services, which nobody translates.
pub(super) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Names another proxy, to which the object is left.
pub(super) const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// Whether an object's labels exclude it, as kube-proxy's selectors do (KEP-2447, and `pkg/proxy/apis/well_known_labels.go`).
pub fn is_excluded(metadata: &objects::Metadata) -> bool {
    let labels = &metadata.labels;
    labels.contains_key(HEADLESS_LABEL) || labels.contains_key(PROXY_NAME_LABEL)
}

/// A slice as the agent sees it; `None` if it belongs to no Service, or if its labels exclude it.
pub fn endpoint_slice(object: &objects::EndpointSlice) -> Option<EndpointSlice> {
    let labels = &object.metadata.labels;
    let service = labels.get(SERVICE_NAME_LABEL)?;
    if is_excluded(&object.metadata) {
        return None;
    }
    let name = object_name(&object.metadata);
    let mut notes = Notes::about("EndpointSlice", &name);
    let family = match object.address_type.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        other => {
            notes.add(
                format!("has addressType `{other}`, which cannot be translated; it is left out"),
                "write IPv4 or IPv6",
            );
            None
        }
    };
    let mut endpoints = Vec::new();
    if let Some(family) = family {
        let convert = |it| endpoint(it, family, &mut notes);
        endpoints = object.endpoints.iter().filter_map(convert).collect();
    }
    let ports = object.ports.iter().filter_map(|it| port(it, &mut notes));
    Some(EndpointSlice {
        ports: ports.collect(),
        service: ServiceName::new(&name.namespace, service),
        family: family.unwrap_or(Family::V4),
        endpoints,
        warnings: notes.finish(),
        name,
    })
}

/// Whether a slice says which Service it belongs to.
pub fn names_service(object: &objects::EndpointSlice) -> bool {
    object.metadata.labels.contains_key(SERVICE_NAME_LABEL)
}

fn port(object: &objects::EndpointPort, notes: &mut Notes) -> Option<EndpointPort> {
    let name = object.name.clone().unwrap_or_default();
    let of = if name.is_empty() {
        "its port".to_owned()
    } else {
        format!("port `{name}`")
    };
    let protocol = notes.protocol(&of, object.protocol.as_deref());
    let Some(number) = object.port else {
        notes.add(
            format!("{of} has no number (every port), which cannot be translated; it is left out"),
            "write a number from 1 to 65535",
        );
        return None;
    };
    let port = notes.port(&of, number)?;
    Some(EndpointPort {
        name,
        protocol: protocol?,
        port,
    })
}

fn endpoint(object: &objects::Endpoint, family: Family, notes: &mut Notes) -> Option<Endpoint> {
    // The addresses of one endpoint are the same pod's; like kube-proxy, take the first.
    let Some(text) = object.addresses.first() else {
        notes.add(
            "has an endpoint without addresses; it is left out",
            "give it an address",
        );
        return None;
    };
    let address: IpAddr = notes.endpoint_address("endpoint address", text, Some(family))?;
    let conditions = &object.conditions;
    let ready = conditions.ready.unwrap_or(true);
    let target = object.target_ref.as_ref().map(|target| Target {
        name: target.name.clone().unwrap_or_default(),
        uid: target.uid.clone().unwrap_or_default(),
    });
    Some(Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: object.node_name.clone(),
        hints: hints(&object.hints),
        target,
    })
}

fn hints(object: &objects::Hints) -> Hints {
    let nodes = object.for_nodes.iter();
    let zones = object.for_zones.iter();
    Hints {
        nodes: nodes.map(|node| node.name.clone()).collect(),
        zones: zones.map(|zone| zone.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn convert(address_type: &str, endpoints: &Value, ports: &Value) -> EndpointSlice {
        let object = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {SERVICE_NAME_LABEL: "web"}},
            "addressType": address_type, "endpoints": endpoints, "ports": ports,
        });
        endpoint_slice(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn absent_conditions_mean_what_kubernetes_says_they_mean() {
        let cases = [
            (json!({}), (true, true, false)),
            (json!({"ready": false}), (false, true, false)),
            (
                json!({"ready": false, "terminating": true}),
                (false, true, true),
            ),
            (
                json!({"ready": false, "serving": true, "terminating": true}),
                (false, true, true),
            ),
            (json!({"serving": false}), (true, false, false)),
        ];
        for (conditions, expected) in cases {
            let endpoints = json!([{"addresses": ["10.0.0.1"], "conditions": conditions}]);
            let slice = convert("IPv4", &endpoints, &json!([]));
            let endpoint = &slice.endpoints[0];
            assert_eq!(
                (endpoint.ready, endpoint.serving, endpoint.terminating),
                expected
            );
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_left_out_and_named() {
        let cases = [
            ("IPv4", "fd00::1", "is IPv6 where IPv4 is announced"),
            ("IPv6", "10.0.0.1", "is IPv4 where IPv6 is announced"),
            ("IPv6", "::ffff:10.0.0.1", "is IPv4 where IPv6 is announced"),
            ("IPv4", "169.254.169.254", "is a link-local address"),
            ("IPv6", "fe80::1", "is a link-local address"),
            ("IPv6", "::", "is the unspecified address"),
            ("IPv6", "ff02::1", "is a multicast address"),
            ("IPv4", "127.0.0.1", "is a loopback address"),
            ("IPv6", "::1", "is a loopback address"),
            ("IPv4", "0.0.0.0", "is the unspecified address"),
            ("IPv4", "224.0.0.5", "is a multicast address"),
            ("IPv4", "255.255.255.255", "is the broadcast address"),
            ("IPv4", "10.0.0", "is no IP address"),
            ("FQDN", "example.org", "has addressType `FQDN`"),
            ("IPv7", "10.0.0.1", "has addressType `IPv7`"),
        ];
        for (address_type, address, problem) in cases {
            let endpoints = json!([{"addresses": [address]}]);
            let slice = convert(address_type, &endpoints, &json!([]));
            assert!(slice.endpoints.is_empty(), "{address}");
            assert!(
                slice.warnings[0].to_string().contains(problem),
                "{:?}",
                slice.warnings
            );
            assert!(
                slice.warnings[0]
                    .to_string()
                    .contains("EndpointSlice shop/web-1")
            );
        }
    }

    #[test]
    fn an_address_in_an_unusual_form_is_taken_and_named() {
        for (address, problem) in [
            (
                "010.0.0.1",
                "endpoint address 010.0.0.1 has leading zeros; it is read in decimal, as 10.0.0.1",
            ),
            (
                "::ffff:10.0.0.1",
                "endpoint address ::ffff:10.0.0.1 is an IPv4 address written as IPv6; it is taken, as 10.0.0.1",
            ),
        ] {
            let endpoints = json!([{"addresses": [address]}]);
            let slice = convert("IPv4", &endpoints, &json!([]));
            assert_eq!(slice.endpoints[0].address.to_string(), "10.0.0.1");
            assert_eq!(slice.warnings[0].problem, problem);
        }
    }

    #[test]
    fn of_many_wrong_endpoints_the_first_are_named_and_the_rest_is_counted() {
        let endpoints: Vec<Value> = (0..70).map(|_| json!({"addresses": ["::1"]})).collect();
        let slice = convert("IPv6", &json!(endpoints), &json!([]));
        assert_eq!(slice.warnings.len(), 6);
        assert!(slice.warnings[5].problem.starts_with("65 more"));
    }

    #[test]
    fn a_port_that_cannot_be_used_is_left_out() {
        let ports = json!([{"name": "a", "port": 0}, {"name": "b"}, {"name": null, "port": 8080},
            {"name": "d", "port": 1, "protocol": "QUIC"}, {"name": "e", "port": -1}]);
        let slice = convert("IPv4", &json!([]), &ports);
        let ports: Vec<_> = slice.ports.iter().map(|it| (&*it.name, it.port)).collect();
        assert_eq!(ports, [("", 8080)], "no name is the empty name");
        let problems: Vec<_> = slice.warnings.iter().map(|it| &*it.problem).collect();
        assert_eq!(
            problems,
            [
                "port `a` is 0; the port is left out",
                "port `b` has no number (every port), which cannot be translated; it is left out",
                "port `d` has the unknown protocol `QUIC`; the port is left out",
                "port `e` is -1; the port is left out",
            ]
        );
    }

    #[test]
    fn a_slice_without_a_service_is_nobodys() {
        let object = json!({"metadata": {"name": "own", "labels": {}}, "addressType": "IPv4", "endpoints": []});
        assert!(endpoint_slice(&serde_json::from_value(object).unwrap()).is_none());
    }
}
