//! What the maps should say. First by names and addresses ([`services`], pure), then by ids and slots ([`Ledger`]).
mod addresses;
mod backends;
mod claims;
mod eligible;
mod frontends;
mod ids;
mod ledger;
mod networks;
mod refusal;
mod regions;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use lb_common::{FrontendFlags, Protocol};

pub use addresses::{Addresses, addresses, own_addresses};
pub use backends::Backend;
pub use claims::Frontend;
pub use eligible::local_ready;
pub use ledger::{Dispute, FamilyScope, Ledger, Limits, RestingBackend, Scope, Shown};
pub use networks::networks;
pub use refusal::Refusal;

use self::slots::Members;
use crate::model::{
    Created, EndpointSlice, Family, Place, Service, ServicePortName, Target, TrafficPolicy,
};

/// A service port in one IP family, for the clients of one traffic policy: the owner of one id in SERVICES.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The service port.
    pub port: ServicePortName,
    /// The family of its frontends and backends.
    pub family: Family,
    /// Which endpoints its backends are chosen from.
    pub policy: TrafficPolicy,
}

/// What a service port of one family should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// Whose it is.
    pub key: ServiceKey,
    /// When its Service was made: of several that want a frontend the oldest has it.
    pub created: Created,
    /// Where it is reachable.
    pub frontends: BTreeMap<Frontend, FrontendFlags>,
    /// Who takes new flows, in slot order; no address twice.
    pub backends: Vec<DesiredBackend>,
    /// How long a client stays with the backend it has; zero: it does not.
    pub affinity_seconds: u32,
    /// Of which clients the frontends with [`FrontendFlags::SOURCE_RANGES`] may be dialled.
    pub source_ranges: BTreeSet<IpNet>,
    /// The pods at each address that its slices name, eligible or not.
    pub present: BTreeMap<IpAddr, Vec<Presence>>,
    /// The serving endpoints, eligible or not.
    pub serving: BTreeSet<SocketAddr>,
}

/// Who takes new flows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DesiredBackend {
    /// Where traffic is sent.
    pub address: SocketAddr,
    /// The pod, if known.
    pub target: Option<Target>,
    /// Its node, if known.
    pub node: Option<String>,
}

/// An endpoint that some slice names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// The pod's uid, if known.
    pub uid: Option<String>,
    /// Its pod is being deleted.
    pub terminating: bool,
}

/// What a Service should be: one entry for each of its ports, families and traffic policies. Services that are not served have none.
/// Endpoints are chosen for clients at `place`.
pub fn services(
    service: &Service,
    slices: &[&EndpointSlice],
    place: &Place,
) -> Vec<DesiredService> {
    let mut desired = Vec::new();
    if service.not_served.is_some() {
        return desired;
    }
    for family in Family::ALL {
        for port in &service.ports {
            for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
                let mut frontends = frontends::frontends(service, port, family, policy, place);
                if frontends.is_empty() {
                    continue;
                }
                let Members {
                    backends,
                    present,
                    serving,
                } = slots::members(port, family, slices, policy, place);
                if backends.is_empty() && policy == TrafficPolicy::Local {
                    let everywhere = TrafficPolicy::Cluster;
                    let elsewhere = slots::members(port, family, slices, everywhere, place);
                    if !elsewhere.backends.is_empty() {
                        let flags = frontends.values_mut();
                        flags.for_each(|it| *it = it.with(FrontendFlags::BACKENDS_ELSEWHERE));
                    }
                }
                let is_limited = |it: &FrontendFlags| it.has(FrontendFlags::SOURCE_RANGES);
                let source_ranges = if frontends.values().any(is_limited) {
                    service.ranges(family).unwrap_or_default()
                } else {
                    BTreeSet::new()
                };
                let key = ServiceKey {
                    port: ServicePortName {
                        service: service.name.clone(),
                        port: port.name.clone(),
                        protocol: port.protocol,
                    },
                    family,
                    policy,
                };
                desired.push(DesiredService {
                    key,
                    created: service.created,
                    frontends,
                    backends,
                    affinity_seconds: service.affinity_seconds,
                    source_ranges,
                    present,
                    serving,
                });
            }
        }
    }
    desired
}

impl ServiceKey {
    /// The same service port for the clients of the other traffic policy.
    fn sibling(&self) -> Self {
        Self {
            policy: match self.policy {
                TrafficPolicy::Cluster => TrafficPolicy::Local,
                TrafficPolicy::Local => TrafficPolicy::Cluster,
            },
            ..self.clone()
        }
    }

    /// The lowest key a Service can have: keys of one Service stand together from here on.
    fn first_of(service: &crate::model::ServiceName) -> Self {
        Self {
            port: ServicePortName {
                service: service.clone(),
                port: String::new(),
                protocol: Protocol::Tcp,
            },
            family: Family::V4,
            policy: TrafficPolicy::Cluster,
        }
    }
}

#[cfg(test)]
mod tests;
