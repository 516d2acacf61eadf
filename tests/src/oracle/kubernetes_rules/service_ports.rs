//! A port of a Service in one family, with everything that decides about it.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};

use super::prefix::{Prefix, parse_address};
use super::{Family, Node, Objects};

/// Gives a Service to another proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// A port of a Service in one family.
#[derive(Debug)]
pub(super) struct ServicePort<'a> {
    pub(super) service: &'a Service,
    pub(super) name: &'a str,
    pub(super) protocol: &'a str,
    pub(super) cluster: SocketAddr,
    /// Where load balancers that keep the destination send their packets.
    pub(super) balancers: Vec<SocketAddr>,
    /// `externalIPs`, if they are served.
    pub(super) external: Vec<SocketAddr>,
    pub(super) node_port: Option<u16>,
    /// Who may dial `balancers`; empty for everybody.
    pub(super) source_ranges: Vec<Prefix>,
    pub(super) is_internal_local: bool,
    pub(super) is_external_local: bool,
}

/// All of a family.
pub(super) fn service_ports<'a>(
    objects: &'a Objects,
    node: &Node,
    family: Family,
) -> Vec<ServicePort<'a>> {
    let mut ports = Vec::new();
    for service in &objects.services {
        let Some(spec) = service.spec.as_ref().filter(|spec| is_ours(service, spec)) else {
            continue;
        };
        let Some(cluster_ip) = cluster_ip(spec, family) else {
            continue;
        };
        for port in spec.ports.iter().flatten() {
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            let at = |address| SocketAddr::new(address, number);
            let external = external_ips(spec, family);
            let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
            // A Service that nobody outside can dial has no policy for the outside.
            let is_for_outside = ["NodePort", "LoadBalancer"].contains(&kind)
                || kind == "ClusterIP" && spec.external_ips.iter().flatten().next().is_some();
            ports.push(ServicePort {
                service,
                name: port.name.as_deref().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP"),
                cluster: at(cluster_ip),
                balancers: balancers(service, family).into_iter().map(at).collect(),
                external: if node.ignore_external_ips {
                    Vec::new()
                } else {
                    external.into_iter().map(at).collect()
                },
                node_port: port
                    .node_port
                    .and_then(|number| u16::try_from(number).ok())
                    .filter(|number| *number != 0),
                source_ranges: source_ranges(spec, family),
                is_internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
                is_external_local: is_for_outside
                    && spec.external_traffic_policy.as_deref() == Some("Local"),
            });
        }
    }
    ports
}

fn is_ours(service: &Service, spec: &ServiceSpec) -> bool {
    let labels = service.metadata.labels.as_ref();
    let is_others = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME));
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    !is_others && !is_headless && spec.type_.as_deref() != Some("ExternalName")
}

/// Objects of before dual-stack have no families and one address.
fn cluster_ip(spec: &ServiceSpec, family: Family) -> Option<IpAddr> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if families.is_empty() {
        let address = parse_address(spec.cluster_ip.as_deref()?)?;
        return (Family::of(address) == family).then_some(address);
    }
    let place = families.iter().position(|name| name == family.name())?;
    parse_address(spec.cluster_ips.as_ref()?.get(place)?)
}

fn of_family(texts: impl Iterator<Item = impl AsRef<str>>, family: Family) -> Vec<IpAddr> {
    let addresses = texts.filter_map(|text| parse_address(text.as_ref()));
    addresses.filter(|it| Family::of(*it) == family).collect()
}

fn external_ips(spec: &ServiceSpec, family: Family) -> Vec<IpAddr> {
    of_family(spec.external_ips.iter().flatten(), family)
}

/// A load balancer in the mode `Proxy` dials node ports, and its address is nobody's here (KEP-1860).
fn balancers(service: &Service, family: Family) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let keeps = |it: &&LoadBalancerIngress| it.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
    let kept = ingress.into_iter().flatten().filter(keeps);
    of_family(kept.filter_map(|it| it.ip.as_ref()), family)
}

/// Prefixes of the other family bind nobody of this one; one that has everybody is as good as none.
fn source_ranges(spec: &ServiceSpec, family: Family) -> Vec<Prefix> {
    let written = spec.load_balancer_source_ranges.iter().flatten();
    let all = written.filter_map(|text| Prefix::parse(text));
    let like: IpAddr = match family {
        Family::V4 => [0; 4].into(),
        Family::V6 => [0; 16].into(),
    };
    let ranges: Vec<Prefix> = all.filter(|prefix| prefix.is_like(like)).collect();
    if ranges.iter().any(Prefix::is_all) {
        return Vec::new();
    }
    ranges
}
