//! What the agent shows of itself: the answer to [`Event::View`](super::Event::View), made when somebody asks.
//!
//! Everything is serialisable: `status` and `get` receive it through the agent's socket.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{BackendId, ServiceId};
use serde::{Deserialize, Serialize};

use crate::{
    agent::Source,
    model::{Family, ServiceType, Warning},
};

/// The agent's state at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Every service port of each family that is served, by name.
    pub services: Vec<ServiceView>,
    /// Every backend that is not free, by family and id.
    pub backends: Vec<BackendView>,
    /// Services that get no frontends, with the reason: headless, `ExternalName`, another proxy's.
    pub not_served: Vec<NotServedView>,
    /// Services that do not fit or whose frontend belongs to another Service.
    pub refused: Vec<Warning>,
    /// Everything a person should look at, the refused services included.
    pub warnings: Vec<Warning>,
    /// Where the agent's knowledge comes from.
    pub sources: Vec<SourceView>,
    /// The last plan that was carried out.
    pub last_plan: Option<PlanView>,
    /// Changes that the agent knows of and that are not in the maps yet, in services.
    pub pending: usize,
    /// Whether the maps follow the sources as far as they can: only what was refused is missing.
    pub settled: bool,
    /// Whether the maps say what the sources say.
    pub in_sync: bool,
}

/// A service port of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its id in SERVICES.
    pub id: ServiceId,
    /// Namespace.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Its type, if the Service is known.
    #[serde(rename = "type")]
    pub kind: Option<ServiceType>,
    /// Name of the port; empty if it has none.
    pub port: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The family.
    pub family: Family,
    /// The Service's cluster address of this family, if it has one and the Service is known.
    pub cluster_ip: Option<IpAddr>,
    /// The TCP port at the node's addresses where load balancers check its health, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_port: Option<u16>,
    /// What clients dial.
    pub frontends: Vec<SocketAddr>,
    /// What clients of it would dial, but another Service has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<TakenFrontend>,
    /// The backends in its slots.
    pub backends: Vec<BackendId>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_backends_because: Option<String>,
    /// How long ago the Service or its endpoints last changed, in milliseconds; `None` if nobody knows.
    pub changed_ms: Option<u64>,
}

impl View {
    /// The names of service ports by family and id.
    pub fn port_names(&self) -> BTreeMap<(Family, ServiceId), String> {
        let services = self.services.iter();
        services
            .map(|it| ((it.family, it.id), it.port_name()))
            .collect()
    }
}

impl ServiceView {
    /// `namespace/name:port/protocol`, or `namespace/name/protocol` if the port has no name.
    pub fn port_name(&self) -> String {
        let Self {
            namespace,
            name,
            port,
            protocol,
            ..
        } = self;
        let slash = if namespace.is_empty() { "" } else { "/" };
        let colon = if port.is_empty() { "" } else { ":" };
        format!("{namespace}{slash}{name}{colon}{port}/{protocol}")
    }
}

/// A frontend that a service does not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TakenFrontend {
    /// Address and port.
    pub frontend: SocketAddr,
    /// Who has it: `namespace/name`.
    pub by: String,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Its id in BACKENDS.
    pub id: BackendId,
    /// The family: ids of the two families are separate.
    pub family: Family,
    /// Address and port.
    pub address: SocketAddr,
    /// `active`, `draining`, `left` or `gone`.
    pub state: String,
    /// How many owners the id has had.
    pub generation: u32,
    /// Its service's id.
    pub service_id: ServiceId,
    /// Its service port (`namespace/name:port/protocol`), if known.
    pub service: Option<String>,
    /// Name of the pod, if known.
    pub pod: Option<String>,
    /// Name of the node it runs on, if known.
    pub node: Option<String>,
}

/// A Service without frontends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotServedView {
    /// `namespace/name`
    pub service: String,
    /// Why.
    pub reason: String,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// Which.
    pub source: Source,
    /// Whether it has said what there is.
    pub listed: bool,
    /// How long ago it last said something, in milliseconds.
    pub last_event_ms: Option<u64>,
}

/// A plan that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// Changes made.
    pub changes: usize,
    /// How long it took from the events to the last change, in microseconds.
    pub microseconds: u64,
    /// How long ago it ended, in milliseconds.
    pub age_ms: u64,
    /// What stopped it, if something did.
    pub error: Option<String>,
}
