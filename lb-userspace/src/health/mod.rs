//! What load balancers and the kubelet ask over HTTP, as they ask kube-proxy: `/healthz` and `/livez` of the agent, and
//! the `healthCheckNodePort` of each Service whose load balancer is to find the nodes with endpoints.
//!
//! The agent's loop says what it knows ([`Facts`]), the servers answer by it without asking the loop: an agent that hangs
//! is seen to be late.
mod answer;
mod servers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

pub use servers::start;

use crate::model::{Family, ServiceName};

/// How long a change may wait for its plan before the agent counts as unhealthy: kube-proxy's twice `syncPeriod`.
const LATE: Duration = Duration::from_mins(1);

/// What the agent's loop says of itself. Times are since the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node is known, is not being deleted and does not carry the cluster autoscaler's taint. Without a source of
    /// Nodes there is no reason against it.
    pub is_node_eligible: bool,
    /// When the maps last followed the sources.
    pub updated: Option<Duration>,
    /// Since when there has been a change that is not in the maps.
    pub behind_since: Option<Duration>,
    /// The node's addresses at which health checks are answered.
    pub addresses: BTreeSet<IpAddr>,
    /// Services with a port for health checks.
    pub checks: BTreeMap<ServiceName, Check>,
}

/// What a Service's health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its `healthCheckNodePort`.
    pub port: u16,
    /// In each family that it has a cluster address of: how many ready endpoints are on this node.
    pub local_endpoints: BTreeMap<Family, usize>,
}

impl Facts {
    /// Whether no change has waited for too long. An agent that has made no plan yet is starting up.
    fn is_healthy(&self, now: Duration) -> bool {
        let late = |since: Duration| now.saturating_sub(since) >= LATE;
        self.updated.is_none() || !self.behind_since.is_some_and(late)
    }
}
