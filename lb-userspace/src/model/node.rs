//! The node the agent runs on.

/// What is known of the agent's own node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Whether it is being deleted or carries the cluster autoscaler's taint.
    pub leaving: bool,
}
