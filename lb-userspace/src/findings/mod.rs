//! What cannot be served as a Service asks for it, by Service: for those who own the Services and do not read the logs of
//! nodes. The log and `waggle status` have the same.
mod api;
pub mod node_ports;
pub mod notice;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ServiceName, Warning};

/// Why something is not served as it was asked for. The names are those of Kubernetes Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Something in the Service cannot be taken as it is written.
    InvalidService,
    /// Something in its slices cannot.
    InvalidEndpoints,
    /// It does not fit into the maps.
    NoRoom,
    /// Another Service has an address and port that it wants.
    FrontendTaken,
    /// A socket of the node listens at its node port.
    NodePortInUse,
}

impl Reason {
    /// As an Event has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidService => "InvalidService",
            Self::InvalidEndpoints => "InvalidEndpoints",
            Self::NoRoom => "NoRoom",
            Self::FrontendTaken => "FrontendTaken",
            Self::NodePortInUse => "NodePortInUse",
        }
    }
}

/// Something about a Service that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Why.
    pub reason: Reason,
    /// Tells it from other findings of that reason about the same Service. Nodes that find the same have the same here,
    /// though their texts may differ (by an address of the node, or by how much room a map has).
    pub key: String,
    /// In words.
    pub warning: Warning,
}

/// What is to be said about a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its uid.
    pub uid: String,
    /// Everything that holds now; never empty in [`Findings`].
    pub findings: BTreeSet<Finding>,
}

/// Everything that holds at a moment.
pub type Findings = BTreeMap<ServiceName, About>;
