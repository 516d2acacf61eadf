//! The endpoints of a Service from the Pods its selector matches: what a cluster's endpoint slice controller would
//! make of them. Only manifests need it.
//!
//! Two rules are our own, because nobody but the person who writes the manifests knows better: a Pod without any
//! conditions in its status counts as ready, and its identity without a uid is its name.
use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    convert::{Notes, object_name},
    model::{Endpoint, EndpointPort, EndpointSlice, Family, Hints, ServiceName, SliceName, Target},
    objects::{Pod, Service, ServiceSpec},
};

/// What identifies a pod: its uid, or without one its namespace and name.
pub fn pod_uid(pod: &Pod) -> String {
    pod.metadata
        .uid
        .clone()
        .unwrap_or_else(|| object_name(&pod.metadata).to_string())
}

/// The slices of a Service. Without a selector there are none: somebody else writes them.
pub fn select(service: &Service, pods: &[&Pod]) -> Vec<EndpointSlice> {
    let name = object_name(&service.metadata);
    let (spec, selector) = (&service.spec, &service.spec.selector);
    if selector.is_empty() {
        return Vec::new();
    }
    let mut notes = Notes::about("Service", &name);
    // Pods may differ in the numbers of their named ports: a slice for each combination, as the controller does.
    let mut slices: BTreeMap<(Family, Vec<EndpointPort>), Vec<Endpoint>> = BTreeMap::new();
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
    let (matching, elsewhere): (Vec<&Pod>, Vec<&Pod>) = pods
        .iter()
        .filter(|pod| has_labels(pod, selector))
        .partition(|pod| object_name(&pod.metadata).namespace == name.namespace);
    if matching.is_empty() {
        miss(&name, selector, pods, &elsewhere, &mut notes);
    }
    for pod in matching {
        if is_finished(pod) {
            continue;
        }
        let ports = ports_of(spec, pod, &mut notes);
        for address in addresses(pod, &mut notes) {
            let endpoint = endpoint(pod, address, publish_not_ready);
            match slices.entry((Family::of(address), ports.clone())) {
                Entry::Vacant(place) => drop(place.insert(vec![endpoint])),
                Entry::Occupied(mut place) => place.get_mut().push(endpoint),
            }
        }
    }
    let mut warnings = notes.finish();
    if slices.is_empty() && !warnings.is_empty() {
        slices.insert((Family::V4, Vec::new()), Vec::new());
    }
    let slices = slices.into_iter().enumerate();
    let slices = slices.map(|(number, ((family, ports), endpoints))| EndpointSlice {
        name: SliceName::new(&name.namespace, format!("{}-pods-{number}", name.name)),
        service: name.clone(),
        family,
        ports,
        endpoints,
        warnings: std::mem::take(&mut warnings),
    });
    slices.collect()
}

/// No Pod of the Service's namespace is meant by its selector: who reads that wants to know what there is.
fn miss(
    name: &ServiceName,
    selector: &BTreeMap<String, String>,
    pods: &[&Pod],
    elsewhere: &[&Pod],
    notes: &mut Notes,
) {
    let namespace = &name.namespace;
    let labels: Vec<String> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let of_namespace = pods.iter();
    let count = of_namespace
        .filter(|pod| object_name(&pod.metadata).namespace == *namespace)
        .count();
    let problem = format!(
        "its selector {} means none of the {count} Pods of namespace {namespace}",
        labels.join(",")
    );
    match elsewhere.first() {
        Some(pod) => {
            let other = object_name(&pod.metadata);
            notes.add(
                format!("{problem}; Pod {other} has these labels"),
                "put the Service into the Pods' namespace",
            );
        }
        None => notes.add(
            problem,
            "correct the selector or the Pods' labels, or write Pods or an EndpointSlice: Deployments and their like make none here",
        ),
    }
}

fn has_labels(pod: &Pod, selector: &BTreeMap<String, String>) -> bool {
    let labels = &pod.metadata.labels;
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// A Pod that is still pending has none yet.
fn without_address(pod: &Pod, notes: &mut Notes) {
    if phase(pod) == Some("Pending") {
        return;
    }
    notes.add(
        format!("Pod {} has no address", object_name(&pod.metadata).name),
        "write its status.podIP",
    );
}

fn addresses(pod: &Pod, notes: &mut Notes) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        without_address(pod, notes);
        return Vec::new();
    };
    let mut written: Vec<&str> = status.pod_ips.iter().map(|it| it.ip.as_str()).collect();
    if written.is_empty() {
        written = status.pod_ip.iter().map(String::as_str).collect();
    }
    if written.is_empty() {
        without_address(pod, notes);
    }
    let of = format!(
        "address of Pod {}",
        pod.metadata.name.as_deref().unwrap_or_default()
    );
    let parse = |text| notes.endpoint_address(&of, text, None);
    let mut addresses: Vec<IpAddr> = written.into_iter().filter_map(parse).collect();
    addresses.dedup();
    addresses
}

fn endpoint(pod: &Pod, address: IpAddr, publish_not_ready: bool) -> Endpoint {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let serving = conditions.is_none_or(|conditions| {
        conditions
            .iter()
            .any(|it| it.kind == "Ready" && it.status == "True")
    });
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Endpoint {
        address,
        ready: publish_not_ready || (serving && !terminating),
        serving,
        terminating,
        node: pod.spec.node_name.clone(),
        hints: Hints::default(),
        target: Some(Target {
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod_uid(pod),
        }),
    }
}

/// The Service's ports at this pod. Those that are wrong in the Service are not complained about here.
fn ports_of(spec: &ServiceSpec, pod: &Pod, notes: &mut Notes) -> Vec<EndpointPort> {
    let mut ports = Vec::new();
    for port in &spec.ports {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let Some(known) =
            Notes::about("", &object_name(&pod.metadata)).protocol("", Some(protocol))
        else {
            continue;
        };
        let number = match &port.target_port {
            // The API server writes the port in place of nothing, of 0 and of an empty name.
            None | Some(IntOrString::Int(0)) => Some(port.port),
            Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(name)) => {
                let number = container_port(pod, name, protocol);
                if number.is_none() {
                    notes.add(
                        format!(
                            "targetPort `{name}` names no {protocol} port of Pod {}; the Pod is left out for it",
                            pod.metadata.name.as_deref().unwrap_or_default()
                        ),
                        "name a containerPort so, or write a number",
                    );
                }
                number
            }
        };
        let of = format!("targetPort of port {}", port.port);
        let Some(number) = number.and_then(|number| notes.port(&of, number)) else {
            continue;
        };
        let name = port.name.clone().unwrap_or_default();
        ports.push(EndpointPort {
            name,
            protocol: known,
            port: number,
        });
    }
    ports
}

fn container_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = &pod.spec;
    let sidecars = spec.init_containers.iter();
    let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let mut ports = containers.flat_map(|container| &container.ports);
    let found = ports.find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found.map(|port| port.number)
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
