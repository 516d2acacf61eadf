//! Which endpoints may serve: readiness, termination (KEP-1669), policies (KEP-2086), topology (KEP-2433, KEP-4444).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use super::prefix::parse_address;
use super::service_ports::ServicePort;
use super::{Family, Node, Objects};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// An endpoint of one port.
#[derive(Clone, Debug)]
struct Endpoint {
    address: SocketAddr,
    is_ready: bool,
    /// Terminating, but still serving.
    is_last_resort: bool,
    is_local: bool,
    for_nodes: BTreeSet<String>,
    for_zones: BTreeSet<String>,
}

/// Endpoints by what clients may have.
#[derive(Debug, Default)]
pub(super) struct Eligible {
    /// For clients without a preference, or with one for what is near.
    pub(super) cluster: BTreeSet<SocketAddr>,
    /// For clients that are bound to this node.
    pub(super) local: BTreeSet<SocketAddr>,
    /// Whether somebody could serve, here or elsewhere.
    pub(super) is_anybody: bool,
    /// Of all, those on this node.
    pub(super) here: BTreeSet<SocketAddr>,
}

/// The endpoints of a port.
pub(super) fn eligible(
    objects: &Objects,
    node: &Node,
    port: &ServicePort<'_>,
    family: Family,
) -> Eligible {
    let all = endpoints(objects, node, port, family);
    let addresses = |is_it: &dyn Fn(&Endpoint) -> bool| -> BTreeSet<SocketAddr> {
        let found = all.iter().filter(|endpoint| is_it(endpoint));
        found.map(|endpoint| endpoint.address).collect()
    };
    let ready: Vec<&Endpoint> = all.iter().filter(|it| it.is_ready).collect();
    let mut cluster = preferred(&ready, node);
    if cluster.is_empty() {
        cluster = addresses(&|it| it.is_last_resort);
    }
    let mut local = addresses(&|it| it.is_ready && it.is_local);
    if local.is_empty() {
        local = addresses(&|it| it.is_last_resort && it.is_local);
    }
    Eligible {
        cluster,
        local,
        is_anybody: all.iter().any(|it| it.is_ready || it.is_last_resort),
        here: addresses(&|it| it.is_local),
    }
}

/// Hints count only if every ready endpoint has some and one of them is for us; those for nodes come first.
fn preferred(ready: &[&Endpoint], node: &Node) -> BTreeSet<SocketAddr> {
    let by = |hints: fn(&Endpoint) -> &BTreeSet<String>, us: &str| -> BTreeSet<SocketAddr> {
        if ready.iter().any(|it| hints(it).is_empty()) {
            return BTreeSet::new();
        }
        let ours = ready.iter().filter(|it| hints(it).contains(us));
        ours.map(|it| it.address).collect()
    };
    let for_node = by(|it| &it.for_nodes, &node.name);
    if !for_node.is_empty() {
        return for_node;
    }
    let for_zone = by(|it| &it.for_zones, node.zone.as_deref().unwrap_or_default());
    if !for_zone.is_empty() {
        return for_zone;
    }
    ready.iter().map(|it| it.address).collect()
}

fn endpoints(
    objects: &Objects,
    node: &Node,
    port: &ServicePort<'_>,
    family: Family,
) -> Vec<Endpoint> {
    let mut known = BTreeMap::<SocketAddr, Endpoint>::new();
    for slice in objects.slices.iter().filter(|it| is_of(it, port, family)) {
        for number in numbers(slice, port) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(found) = read(endpoint, number, node) else {
                    continue;
                };
                // Of two pods with one address the one that stays counts.
                let terminating = endpoint.conditions.as_ref().and_then(|it| it.terminating);
                if !terminating.unwrap_or(false) || !known.contains_key(&found.address) {
                    known.insert(found.address, found);
                }
            }
        }
    }
    known.into_values().collect()
}

fn is_of(slice: &EndpointSlice, port: &ServicePort<'_>, family: Family) -> bool {
    let label = |name: &str| slice.metadata.labels.as_ref()?.get(name);
    slice.address_type == family.name()
        && slice.metadata.namespace == port.service.metadata.namespace
        && label(SERVICE_NAME) == port.service.metadata.name.as_ref()
        && label(HEADLESS).is_none()
}

/// Ports are matched by name and protocol; a slice says the number.
fn numbers(slice: &EndpointSlice, port: &ServicePort<'_>) -> Vec<u16> {
    let ports = slice.ports.iter().flatten();
    let ours = ports.filter(|it| {
        it.name.as_deref() == Some(port.name)
            && it.protocol.as_deref().unwrap_or("TCP") == port.protocol
    });
    let numbers = ours.filter_map(|it| u16::try_from(it.port?).ok());
    numbers.filter(|number| *number != 0).collect()
}

/// What is not said of an endpoint is the best: it is ready, it serves, it stays.
fn read(endpoint: &ApiEndpoint, port: u16, node: &Node) -> Option<Endpoint> {
    let address = parse_address(endpoint.addresses.first()?)?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let is_serving = conditions.serving.unwrap_or(true);
    let is_terminating = conditions.terminating.unwrap_or(false);
    let hints = endpoint.hints.clone().unwrap_or_default();
    let for_nodes = hints.for_nodes.into_iter().flatten().map(|it| it.name);
    let for_zones = hints.for_zones.into_iter().flatten().map(|it| it.name);
    Some(Endpoint {
        address: SocketAddr::new(address, port),
        is_ready: conditions.ready.unwrap_or(true),
        is_last_resort: is_serving && is_terminating,
        is_local: endpoint.node_name.as_ref() == Some(&node.name),
        for_nodes: for_nodes.collect(),
        for_zones: for_zones.collect(),
    })
}
