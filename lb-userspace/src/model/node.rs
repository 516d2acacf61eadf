//! The node the agent runs on.
use std::net::IpAddr;

/// Where clients of this agent are: endpoints can be local to them, or meant for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the node.
    pub node: String,
    /// Its zone, if known: the label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The node's own addresses, at which its node ports are served: one of each family.
    pub addresses: Vec<IpAddr>,
}

/// What is known of the agent's own node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Name and zone.
    pub place: Place,
    /// Whether it is being deleted or carries the cluster autoscaler's taint.
    pub leaving: bool,
}
