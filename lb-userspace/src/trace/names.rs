//! Who hides behind the ids in the tables, as far as an agent says.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{BackendId, FrontendEntry, FrontendFlags, ServiceId};

use super::Scope;
use crate::{
    agent::View,
    model::{Family, ServiceName},
};

/// The names of services and backends.
#[derive(Clone, Debug, Default)]
pub struct Names {
    services: BTreeMap<ServiceId, Service>,
    backends: BTreeMap<(Family, BackendId), String>,
    /// Services by the port at which load balancers check their health.
    health_checks: BTreeMap<u16, ServiceName>,
}

/// A service port of one family.
#[derive(Clone, Debug)]
struct Service {
    object: ServiceName,
    /// Empty if it has no name.
    port: String,
    cluster_ip: Option<IpAddr>,
    no_backends_because: Option<String>,
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
                port: shown.port.clone(),
                cluster_ip: shown.cluster_ip,
                no_backends_because: shown.no_backends_because.clone(),
            };
            (shown.id, service)
        });
        let backends = view.backends.iter().filter_map(|shown| {
            let pod = shown.pod.as_ref().map(|pod| format!("pod {pod}"));
            let node = shown.node.as_ref().map(|node| format!("on {node}"));
            let parts: Vec<String> = pod.into_iter().chain(node).collect();
            (!parts.is_empty()).then(|| ((shown.family, shown.id), parts.join(" ")))
        });
        let health_checks = view.services.iter().filter_map(|shown| {
            let service = ServiceName::new(&shown.namespace, &shown.name);
            Some((shown.health_check_port?, service))
        });
        Self {
            services: services.collect(),
            backends: backends.collect(),
            health_checks: health_checks.collect(),
        }
    }

    /// The Service whose `healthCheckNodePort` this is.
    pub(super) fn health_check(&self, port: u16) -> Option<&ServiceName> {
        self.health_checks.get(&port)
    }

    /// Why a service has no candidates, if that can be told.
    pub(super) fn reasons_against_endpoints(&self, id: ServiceId) -> Option<&str> {
        self.services.get(&id)?.no_backends_because.as_deref()
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
