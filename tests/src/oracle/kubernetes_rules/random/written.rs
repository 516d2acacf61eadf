//! The objects, as the API has them.

use serde_json::{Value, json};

use super::{Oddity, Pod, Service, Slice, Slices};

/// Service number 1 has 10.96.1.1, `203.0.113.1x` and the node ports from 30010.
pub(super) fn written(number: u8, service: &Service, slices: &Slices) -> (Value, Vec<Value>) {
    let name = format!("service-{number}");
    let cluster_ips: Vec<String> = service
        .families
        .iter()
        .map(|family| match *family {
            "IPv4" => format!("10.96.1.{number}"),
            _ => format!("fd00:10:96::1{number}"),
        })
        .collect();
    let outside = |is_v6: &bool, place: usize| {
        if *is_v6 {
            format!("fd00:203:113::{number}{place}")
        } else {
            format!("203.0.113.{number}{place}")
        }
    };
    let mut spec = json!({
        "type": service.kind,
        "clusterIP": cluster_ips.first(),
        "internalTrafficPolicy": service.policies[0],
        "externalTrafficPolicy": service.policies[1],
        "loadBalancerSourceRanges": service.ranges,
        "externalIPs": service.external.iter().zip(1..).map(|(is_v6, place)| outside(is_v6, place)).collect::<Vec<_>>(),
        "ports": ports(number, service),
    });
    if !service.is_short || service.families.len() > 1 {
        spec["clusterIPs"] = json!(cluster_ips);
        spec["ipFamilies"] = json!(service.families);
        let is_dual = service.families.len() > 1;
        spec["ipFamilyPolicy"] = if is_dual {
            "RequireDualStack"
        } else {
            "SingleStack"
        }
        .into();
    }
    if service.is_sticky {
        spec["sessionAffinity"] = "ClientIP".into();
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 60}});
    }
    let mut labels = json!({});
    match service.oddity {
        None => {}
        Some(Oddity::Headless) => {
            spec["clusterIP"] = "None".into();
            spec["clusterIPs"] = json!(["None"]);
        }
        Some(Oddity::OtherProxy) => labels["service.kubernetes.io/service-proxy-name"] = "o".into(),
        Some(Oddity::PublishNotReady) => spec["publishNotReadyAddresses"] = true.into(),
    }
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": spec,
    });
    if service.kind == Some("LoadBalancer") {
        let ingress = service.ingress.iter().zip(5..);
        let ingress: Vec<Value> = ingress
            .map(|((is_v6, mode), place)| json!({"ip": outside(is_v6, place), "ipMode": mode}))
            .collect();
        object["status"] = json!({"loadBalancer": {"ingress": ingress}});
    }
    let mut written = Vec::new();
    for (place, slice) in (1..).zip(&slices.slices) {
        let name = format!("{name}-{place}");
        let labels = slice_labels(number, slice);
        written.push(json!({
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "addressType": if slice.is_v6 { "IPv6" } else { "IPv4" },
            "ports": slice_ports(service, slice),
            "endpoints": endpoints(slice, &slices.pods),
        }));
    }
    (object, written)
}

fn port_name(service: &Service, place: usize) -> String {
    // A single port needs no name.
    if service.ports.len() == 1 {
        String::new()
    } else {
        format!("port-{place}")
    }
}

fn ports(number: u8, service: &Service) -> Vec<Value> {
    let all = service.ports.iter().enumerate();
    let ports = all.map(|(place, port)| {
        let mut written = json!({
            "name": port_name(service, place),
            "protocol": port.protocol,
            "port": 80 + place,
            "targetPort": port.target,
        });
        let has_node_ports = matches!(service.kind, Some("NodePort" | "LoadBalancer"));
        if port.on_nodes && has_node_ports {
            written["nodePort"] = json!(30_000 + usize::from(number) * 10 + place);
        }
        written
    });
    ports.collect()
}

fn slice_labels(number: u8, slice: &Slice) -> Value {
    let mut labels = json!({"kubernetes.io/service-name": format!("service-{number}")});
    if slice.is_headless {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    labels
}

fn slice_ports(service: &Service, slice: &Slice) -> Vec<Value> {
    let all = service.ports.iter().enumerate();
    let known = all.filter(|(place, _)| slice.ports >> place & 1 == 1);
    let ports = known.map(|(place, port)| {
        json!({
            "name": port_name(service, place),
            "protocol": port.protocol,
            "port": port.target,
        })
    });
    ports.collect()
}

fn endpoints(slice: &Slice, pods: &[Pod]) -> Vec<Value> {
    let numbers = slice.pods.iter();
    let known = numbers.filter_map(|number| Some((*number, pods.get(usize::from(*number))?)));
    let endpoints = known.map(|(number, pod)| {
        let (node, octet) = (1 + number / 3, 11 + number % 3);
        let address = if slice.is_v6 {
            format!("fd00:10:244:{node}::{octet}")
        } else {
            format!("10.244.{node}.{octet}")
        };
        let [ready, serving, terminating] = pod.conditions;
        let named = |names: &[&str]| -> Vec<Value> {
            names.iter().map(|name| json!({ "name": name })).collect()
        };
        json!({
            "addresses": [address],
            "nodeName": pod.has_node.then(|| format!("node{node}")),
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "hints": {"forZones": named(&pod.zones), "forNodes": named(&pod.nodes)},
        })
    });
    endpoints.collect()
}
