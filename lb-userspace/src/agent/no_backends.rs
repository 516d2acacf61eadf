//! Why nobody takes new flows of a service, for people.
use crate::{
    desired::ServiceKey,
    model::{Endpoint, EndpointSlice, Place, TrafficPolicy},
};

/// Of the endpoints that serve nobody, so many are named.
const ENDPOINTS: usize = 8;

/// Why a service without backends has none, as its slices tell.
pub(super) fn because(key: &ServiceKey, slices: &[&EndpointSlice], place: &Place) -> String {
    let of_family: Vec<_> = slices.iter().filter(|it| it.family == key.family).collect();
    let endpoints: Vec<&Endpoint> = of_family.iter().flat_map(|it| &it.endpoints).collect();
    if endpoints.is_empty() {
        return format!("nobody names an {} endpoint of it", key.family);
    }
    let port = &key.port;
    let mut ports = of_family.iter().flat_map(|slice| &slice.ports);
    if !ports.any(|it| it.name == port.port && it.protocol == port.protocol) {
        let name = match port.port.as_str() {
            "" => "without a name",
            name => name,
        };
        return format!("its endpoints have no {} port {name}", port.protocol);
    }
    let mut told: Vec<String> = endpoints
        .iter()
        .take(ENDPOINTS)
        .map(|it| state(it))
        .collect();
    if endpoints.len() > ENDPOINTS {
        told.push(format!("{} more", endpoints.len() - ENDPOINTS));
    }
    if key.policy == TrafficPolicy::Local {
        told.push(format!(
            "and the policy is Local to this node, {}",
            place.node
        ));
    }
    told.join(", ")
}

/// `10.244.1.2 is not ready on node-1`
fn state(endpoint: &Endpoint) -> String {
    let state = match (endpoint.ready, endpoint.serving, endpoint.terminating) {
        (true, ..) => "ready",
        (false, true, true) => "terminating",
        (false, false, true) => "terminating and not serving",
        (false, _, false) => "not ready",
    };
    let node = endpoint.node.as_ref();
    let node = node.map_or_else(String::new, |node| format!(" on {node}"));
    let mut meant_for = endpoint.hints.nodes.iter().chain(&endpoint.hints.zones);
    let hints = match meant_for.next() {
        Some(first) => {
            let rest = meant_for.map(|it| format!(" and {it}"));
            format!(", meant for {first}{}", rest.collect::<String>())
        }
        None => String::new(),
    };
    format!("{} is {state}{node}{hints}", endpoint.address)
}

#[cfg(test)]
mod tests {
    use lb_common::Protocol;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        convert,
        model::{Family, ServiceName, ServicePortName},
    };

    fn told(policy: TrafficPolicy, slices: &[Value]) -> String {
        let port = ServicePortName {
            service: ServiceName::new("default", "web"),
            port: "http".to_owned(),
            protocol: Protocol::Tcp,
        };
        let key = ServiceKey {
            port,
            family: Family::V4,
            policy,
        };
        let slices: Vec<_> = slices
            .iter()
            .filter_map(|it| convert::endpoint_slice(&serde_json::from_value(it.clone()).unwrap()))
            .collect();
        let place = Place {
            node: "vm".to_owned(),
            ..Place::default()
        };
        because(&key, &slices.iter().collect::<Vec<_>>(), &place)
    }

    fn slice(kind: &str, port: &str, ready: bool) -> Value {
        json!({
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": kind,
            "ports": [{"name": port, "port": 8080}],
            "endpoints": [{"addresses": [if kind == "IPv4" { "10.244.1.2" } else { "fd00::2" }],
                "conditions": {"ready": ready}, "nodeName": "node-1"}],
        })
    }

    #[test]
    fn what_is_missing_is_named() {
        use TrafficPolicy::{Cluster, Local};
        let nobody = "nobody names an IPv4 endpoint of it";
        for (policy, slices, expected) in [
            (Cluster, vec![], nobody),
            (Cluster, vec![slice("IPv6", "http", true)], nobody),
            (
                Cluster,
                vec![slice("IPv4", "web", true)],
                "its endpoints have no tcp port http",
            ),
            (
                Cluster,
                vec![slice("IPv4", "http", false)],
                "10.244.1.2 is not ready on node-1",
            ),
            (
                Local,
                vec![slice("IPv4", "http", true)],
                "10.244.1.2 is ready on node-1, and the policy is Local to this node, vm",
            ),
        ] {
            assert_eq!(told(policy, &slices), expected);
        }
    }
}
