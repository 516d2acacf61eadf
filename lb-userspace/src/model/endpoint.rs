//! Endpoints: who could answer for a Service, and in what state they are.
use std::{collections::BTreeSet, net::IpAddr};

use lb_common::Protocol;

use crate::model::{Family, ServiceName, SliceName, Warning};

/// A part of a Service's endpoints. A Service may have many slices, and an endpoint may stand in two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: SliceName,
    /// The Service it belongs to.
    pub service: ServiceName,
    /// The family of every address in it.
    pub family: Family,
    /// The ports that every endpoint in it has.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// What was left out of it.
    pub warnings: Vec<Warning>,
}

/// A port of a slice: belongs to the Service's port of the same name and protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointPort {
    /// Empty if it has none.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the pod listens, 1 to 65535.
    pub port: u16,
}

/// An endpoint. Kubernetes' defaults for absent conditions have been filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// May take new flows.
    pub ready: bool,
    /// Answers, though it may be terminating.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// The node it runs on, if known.
    pub node: Option<String>,
    /// Whom it is meant for, if its slice says so.
    pub hints: Hints,
    /// The object behind it, if known.
    pub target: Option<Target>,
}

/// Whose clients an endpoint is meant for; empty lists say nothing (KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Names of nodes.
    pub nodes: BTreeSet<String>,
    /// Zones, as in the label `topology.kubernetes.io/zone` of nodes.
    pub zones: BTreeSet<String>,
}

/// The object behind an endpoint, nearly always a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its name, without the namespace.
    pub name: String,
    /// Its uid: two pods that had the same address one after the other differ in it.
    pub uid: String,
}
