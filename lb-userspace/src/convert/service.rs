//! Service.
use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use lb_common::Protocol;

use crate::{
    convert::{
        Notes,
        endpoint_slice::{HEADLESS_LABEL, PROXY_NAME_LABEL},
        object_name,
    },
    model::{Created, Family, NotServed, Service, ServicePort, ServiceType, TrafficPolicy},
    objects::{self, ServiceSpec},
};

/// How long a client stays with an endpoint if the Service does not say so: Kubernetes' default, three hours.
const AFFINITY_SECONDS: u32 = 10_800;
/// What a Service may say: up to a day.
const AFFINITY_RANGE: RangeInclusive<u32> = 1..=86_400;

/// A Service as the agent sees it.
pub fn service(object: &objects::Service) -> Service {
    let name = object_name(&object.metadata);
    let mut notes = Notes::about("Service", &name);
    let spec = &object.spec;
    let not_served = not_served(object, spec);
    let (mut cluster_ips, mut ports) = (Vec::new(), Vec::new());
    let (mut balancer_ips, mut external_ips) = (Vec::new(), Vec::new());
    let mut health_check_port = None;
    let mut affinity_seconds = 0;
    let mut source_ranges = None;
    if not_served == Some(NotServed::OtherProxy) {
        // Its addresses are known, so that they are left to the other proxy.
        cluster_ips = addresses(spec, &mut Notes::about("Service", &name));
    }
    if not_served.is_none() {
        cluster_ips = addresses(spec, &mut notes);
        source_ranges = ranges(spec, &mut notes);
        balancer_ips = balancer_addresses(object, &mut notes);
        let written = spec.external_ips.iter().map(String::as_str);
        external_ips = distinct("externalIP", written.collect(), &mut notes);
        for (of, outside) in [
            ("load balancer address", &mut balancer_ips),
            ("externalIP", &mut external_ips),
        ] {
            keep_families_of(&cluster_ips, of, outside, &mut notes);
        }
        ports = service_ports(spec, &mut notes);
        health_check_port = health_check(spec, &mut notes);
        affinity_seconds = affinity(spec, &mut notes);
        note_unknown_words(spec, &mut notes);
    }
    let created = object.metadata.creation_timestamp.as_ref();
    Service {
        name,
        uid: object.metadata.uid.clone().unwrap_or_default(),
        created: created.map_or(Created::Unknown, |time| Created::At(time.as_second())),
        kind: service_type(spec.kind.as_deref()),
        cluster_ips,
        source_ranges,
        balancer_ips,
        external_ips,
        ports,
        not_served,
        internal_policy: traffic_policy(spec.internal_traffic_policy.as_deref()),
        external_policy: traffic_policy(spec.external_traffic_policy.as_deref()),
        affinity_seconds,
        health_check_port,
        warnings: notes.finish(),
    }
}

fn not_served(object: &objects::Service, spec: &ServiceSpec) -> Option<NotServed> {
    let labels = &object.metadata.labels;
    let headless = |address: &String| address == "None";
    if service_type(spec.kind.as_deref()) == ServiceType::ExternalName {
        Some(NotServed::ExternalName)
    } else if spec.cluster_ip.as_ref().is_some_and(headless)
        || spec.cluster_ips.iter().any(headless)
        || labels.contains_key(HEADLESS_LABEL)
    {
        Some(NotServed::Headless)
    } else if labels.contains_key(PROXY_NAME_LABEL) {
        Some(NotServed::OtherProxy)
    } else {
        None
    }
}

/// Whatever is none of the others is the default.
fn service_type(written: Option<&str>) -> ServiceType {
    match written {
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        _ => ServiceType::ClusterIp,
    }
}

/// Whatever is not `Local` is the default, as for kube-proxy: a policy that is yet to be invented as well.
fn traffic_policy(written: Option<&str>) -> TrafficPolicy {
    if written == Some("Local") {
        TrafficPolicy::Local
    } else {
        TrafficPolicy::Cluster
    }
}

fn health_check(spec: &ServiceSpec, notes: &mut Notes) -> Option<u16> {
    let kind = service_type(spec.kind.as_deref());
    let policy = traffic_policy(spec.external_traffic_policy.as_deref());
    let number = spec.health_check_node_port.filter(|number| *number != 0)?;
    let is_asked = (kind, policy) == (ServiceType::LoadBalancer, TrafficPolicy::Local);
    is_asked
        .then(|| notes.port("healthCheckNodePort", number))
        .flatten()
}

/// How long a client stays with a backend. Whatever is not `ClientIP` is none, as for kube-proxy.
fn affinity(spec: &ServiceSpec, notes: &mut Notes) -> u32 {
    match spec.session_affinity.as_deref() {
        Some("ClientIP") => {}
        None | Some("" | "None") => return 0,
        Some(other) => {
            notes.add(
                format!(
                    "has the unknown sessionAffinity `{other}`; each connection may get another endpoint"
                ),
                "write ClientIP or None",
            );
            return 0;
        }
    }
    let written = spec.session_affinity_config.client_ip.timeout_seconds;
    let seconds = written.map_or(Ok(AFFINITY_SECONDS), u32::try_from);
    if let Some(seconds) = seconds.ok().filter(|it| AFFINITY_RANGE.contains(it)) {
        return seconds;
    }
    notes.add(
        format!(
            "has the sessionAffinity timeout {} s; it gets the default, {AFFINITY_SECONDS} s",
            written.unwrap_or_default()
        ),
        "write a number of seconds from 1 to 86400",
    );
    AFFINITY_SECONDS
}

fn addresses(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpAddr> {
    let all = spec.cluster_ips.iter().map(String::as_str);
    let mut written: Vec<&str> = all.filter(|address| !address.is_empty()).collect();
    if written.is_empty() {
        let only = spec.cluster_ip.as_deref();
        written = only.into_iter().filter(|it| !it.is_empty()).collect();
    }
    if written.is_empty() {
        notes.add(
            "has no clusterIP, so nobody can dial it; it is not served",
            "write one: in a folder of manifests there is no API server that allocates it",
        );
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in written {
        let Some(address) = notes.address("clusterIP", text, None) else {
            continue;
        };
        if addresses
            .iter()
            .any(|known| Family::of(*known) == Family::of(address))
        {
            notes.add(
                format!(
                    "has a second {} clusterIP, {address}; it is left out",
                    Family::of(address)
                ),
                "a Service has one clusterIP of each family",
            );
            continue;
        }
        addresses.push(address);
    }
    addresses
}

/// Addresses of load balancers that hand packets on as they are.
fn balancer_addresses(object: &objects::Service, notes: &mut Notes) -> Vec<IpAddr> {
    // A load balancer in the mode Proxy dials node ports: who dials its address means itself (KEP-1860).
    let mut written = Vec::new();
    for balancer in &object.status.load_balancer.ingress {
        let address = balancer.ip.as_deref().filter(|it| !it.is_empty());
        match balancer.ip_mode.as_deref() {
            None | Some("VIP") => written.extend(address),
            Some("Proxy") => {}
            Some(mode) => notes.add(
                format!(
                    "has the load balancer address {} with the unknown ipMode `{mode}`; it is left out",
                    address.unwrap_or_default()
                ),
                "write VIP or Proxy",
            ),
        }
    }
    distinct("load balancer address", written, notes)
}

/// Usable addresses, none twice.
fn distinct(of: &str, written: Vec<&str>, notes: &mut Notes) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in written {
        let address = notes.address(of, text, None);
        addresses.extend(address.filter(|it| !addresses.contains(it)));
    }
    addresses
}

/// A family in which a Service has no cluster address it does not serve.
fn keep_families_of(
    cluster_ips: &[IpAddr],
    of: &str,
    outside: &mut Vec<IpAddr>,
    notes: &mut Notes,
) {
    outside.retain(|address| {
        let family = Family::of(*address);
        let is_served = cluster_ips.iter().any(|it| Family::of(*it) == family);
        // Who has no cluster address at all is told so once.
        if !is_served && !cluster_ips.is_empty() {
            notes.add(
                format!(
                    "{of} {address} is {family}, and the Service has no {family} clusterIP; it is left out"
                ),
                format!("give it a clusterIP of {family}, or take the address out"),
            );
        }
        is_served
    });
}

/// From where its load balancer may be dialled, if not from everywhere. What is no prefix lets nobody in.
fn ranges(spec: &ServiceSpec, notes: &mut Notes) -> Option<Vec<IpNet>> {
    let written = spec.load_balancer_source_ranges.iter();
    let mut written = written.map(|it| it.trim()).peekable();
    written.peek()?;
    let ranges = written.filter_map(|text| notes.prefix("loadBalancerSourceRange", text));
    Some(ranges.collect())
}

fn service_ports(spec: &ServiceSpec, notes: &mut Notes) -> Vec<ServicePort> {
    let written = &spec.ports;
    if written.is_empty() {
        notes.add(
            "has no ports; it is not served",
            "give it at least one port",
        );
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::<(u16, Protocol)>::new());
    let mut node_ports = BTreeSet::new();
    let mut ports = Vec::new();
    for port in written {
        let name = port.name.clone().unwrap_or_default();
        let of = if name.is_empty() {
            "its port".to_owned()
        } else {
            format!("port `{name}`")
        };
        let protocol = notes.protocol(&of, port.protocol.as_deref());
        let number = notes.port(&of, port.port);
        let (Some(protocol), Some(number)) = (protocol, number) else {
            continue;
        };
        if !names.insert((name.clone(), protocol)) || !numbers.insert((number, protocol)) {
            notes.add(
                format!("{of} ({number}/{protocol}) is there twice; the second one is left out"),
                "give each port its own name and number",
            );
            continue;
        }
        let node_port = port.node_port.filter(|it| *it != 0);
        let node_port = node_port.and_then(|it| notes.node_port(&of, it));
        let node_port = node_port.filter(|it| {
            let is_first = node_ports.insert((*it, protocol));
            if !is_first {
                notes.add(
                    format!("{of} has nodePort {it}/{protocol}, which another port of the Service has; it is left out here"),
                    "give each port its own nodePort",
                );
            }
            is_first
        });
        let kind = spec.kind.as_deref().filter(|it| !it.is_empty());
        if let (Some(node_port), None | Some("ClusterIP")) = (node_port, kind) {
            notes.add(
                format!("{of} has nodePort {node_port}, though it is of type ClusterIP; the nodePort is served, as by kube-proxy"),
                "write type: NodePort, or take the nodePort out",
            );
        }
        ports.push(ServicePort {
            name,
            protocol,
            port: number,
            node_port,
        });
    }
    ports
}

/// Words that this version does not know: what is made of them is what kube-proxy makes of them.
fn note_unknown_words(spec: &ServiceSpec, notes: &mut Notes) {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    let words: [(&str, &Option<String>, &[&str], &str); 4] = [
        (
            "type",
            &spec.kind,
            &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
            "it is served at all its addresses",
        ),
        (
            "internalTrafficPolicy",
            &spec.internal_traffic_policy,
            POLICIES,
            "it counts as Cluster",
        ),
        (
            "externalTrafficPolicy",
            &spec.external_traffic_policy,
            POLICIES,
            "it counts as Cluster",
        ),
        (
            "trafficDistribution",
            &spec.traffic_distribution,
            &["PreferSameZone", "PreferSameNode", "PreferClose"],
            "the hints of its slices count alone",
        ),
    ];
    for (what, written, known, so) in words {
        let written = written.as_deref().filter(|it| !it.is_empty());
        if let Some(word) = written.filter(|it| !known.contains(it)) {
            notes.add(
                format!("has the unknown {what} `{word}`; {so}"),
                format!("write one of {}", known.join(", ")),
            );
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
