//! Who hides behind the ids in the tables, as far as an agent says.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{BackendId, FrontendEntry, FrontendFlags, ServiceId};

use super::Scope;
use crate::{
    agent::View,
    model::{Endpoint, EndpointSlice, Family, ServiceName},
};

/// Of the endpoints that serve nobody, so many are named.
const ENDPOINTS: usize = 8;

/// The names of services and backends.
#[derive(Clone, Debug, Default)]
pub struct Names {
    services: BTreeMap<ServiceId, Service>,
    backends: BTreeMap<(Family, BackendId), String>,
    /// By Service, where somebody has them.
    slices: Option<BTreeMap<ServiceName, Vec<EndpointSlice>>>,
}

/// A service port of one family.
#[derive(Clone, Debug)]
struct Service {
    object: ServiceName,
    family: Family,
    /// Empty if it has no name.
    port: String,
    protocol: String,
    cluster_ip: Option<IpAddr>,
}

impl Service {
    fn name(&self) -> String {
        if self.port.is_empty() {
            return self.object.to_string();
        }
        format!("{}:{}", self.object, self.port)
    }
}

impl Names {
    /// As an agent shows them.
    pub fn of(view: &View) -> Self {
        let services = view.services.iter().map(|shown| {
            let service = Service {
                object: ServiceName::new(&shown.namespace, &shown.name),
                family: shown.family,
                port: shown.port.clone(),
                protocol: shown.protocol.clone(),
                cluster_ip: shown.cluster_ip,
            };
            (shown.id, service)
        });
        let backends = view.backends.iter().filter_map(|shown| {
            let pod = shown.pod.as_ref().map(|pod| format!("pod {pod}"));
            let node = shown.node.as_ref().map(|node| format!("on {node}"));
            let parts: Vec<String> = pod.into_iter().chain(node).collect();
            (!parts.is_empty()).then(|| ((shown.family, shown.id), parts.join(" ")))
        });
        Self {
            services: services.collect(),
            backends: backends.collect(),
            slices: None,
        }
    }

    /// With the endpoints, so that it can be told why none of a Service's is used.
    #[must_use]
    pub fn with_slices(mut self, slices: Vec<EndpointSlice>) -> Self {
        let mut by_service: BTreeMap<ServiceName, Vec<EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            let of_service = by_service.entry(slice.service.clone()).or_default();
            of_service.push(slice);
        }
        self.slices = Some(by_service);
        self
    }

    /// Why a service has no candidates, if that can be told.
    pub(super) fn reasons_against_endpoints(&self, id: ServiceId) -> Option<String> {
        let service = self.services.get(&id)?;
        let slices = self.slices.as_ref()?.get(&service.object);
        let of_family: Vec<&EndpointSlice> = slices
            .into_iter()
            .flatten()
            .filter(|slice| slice.family == service.family)
            .collect();
        let endpoints: Vec<&Endpoint> = of_family.iter().flat_map(|it| &it.endpoints).collect();
        if endpoints.is_empty() {
            return Some(format!("nobody names an {} endpoint of it", service.family));
        }
        let has_port = |slice: &&EndpointSlice| {
            slice.ports.iter().any(|port| {
                port.name == service.port && port.protocol.to_string() == service.protocol
            })
        };
        if !of_family.iter().any(has_port) {
            let name = if service.port.is_empty() {
                "without a name"
            } else {
                &service.port
            };
            return Some(format!(
                "its EndpointSlices have no {} port {name}",
                service.protocol
            ));
        }
        let mut told: Vec<String> = endpoints
            .iter()
            .take(ENDPOINTS)
            .map(|it| state(it))
            .collect();
        if endpoints.len() > ENDPOINTS {
            told.push(format!("{} more", endpoints.len() - ENDPOINTS));
        }
        Some(told.join(", "))
    }

    /// `namespace/name:port`, or `namespace/name` if the port has no name.
    pub(super) fn service(&self, id: ServiceId) -> Option<String> {
        self.services.get(&id).map(Service::name)
    }

    /// `pod web-1 on node-1`
    pub(super) fn backend(&self, family: Family, id: BackendId) -> Option<&str> {
        self.backends.get(&(family, id)).map(String::as_str)
    }

    /// What kind of frontend it is; nameless tables tell only where requests are masqueraded.
    pub(super) fn scope(&self, at: SocketAddr, entry: FrontendEntry) -> Option<Scope> {
        match self.services.get(&entry.service_id) {
            Some(service) if service.cluster_ip == Some(at.ip()) => Some(Scope::Internal),
            Some(_) => Some(Scope::External),
            None => entry
                .flags
                .has(FrontendFlags::MASQUERADE)
                .then_some(Scope::External),
        }
    }
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
