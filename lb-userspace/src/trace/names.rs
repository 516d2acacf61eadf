//! Who hides behind the ids in the tables, as far as an agent says.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{BackendId, FrontendEntry, FrontendFlags, ServiceId};

use super::Scope;
use crate::{agent::View, model::Family};

/// The names of services and backends.
#[derive(Clone, Debug, Default)]
pub struct Names {
    services: BTreeMap<ServiceId, Service>,
    backends: BTreeMap<(Family, BackendId), String>,
}

#[derive(Clone, Debug)]
struct Service {
    name: String,
    cluster_ip: Option<IpAddr>,
}

impl Names {
    /// As an agent shows them.
    pub fn of(view: &View) -> Self {
        let services = view.services.iter().map(|shown| {
            let mut name = format!("{}/{}", shown.namespace, shown.name);
            if !shown.port.is_empty() {
                name = format!("{name}:{}", shown.port);
            }
            let cluster_ip = shown.cluster_ip;
            (shown.id, Service { name, cluster_ip })
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
        }
    }

    /// `namespace/name:port`, or `namespace/name` if the port has no name.
    pub(super) fn service(&self, id: ServiceId) -> Option<String> {
        self.services.get(&id).map(|service| service.name.clone())
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
