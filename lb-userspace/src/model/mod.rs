//! What the agent knows of the cluster, in plain types: no Kubernetes API, no aya, no clock.
mod endpoint;
mod name;
mod node;
mod printable;
mod service;
mod service_cidr;
mod snapshot;
mod unreadable;
mod warning;

pub use endpoint::{Endpoint, EndpointPort, EndpointSlice, Hints, Target};
pub use name::{ObjectName, ServiceName, ServicePortName, SliceName};
pub use node::{DetectLocal, DeviceAddresses, Node, NodePortAddresses, Place};
pub use printable::{is_acted_on, printable};
pub use service::{Created, NotServed, Service, ServicePort, ServiceType, TrafficPolicy};
pub use service_cidr::ServiceCidr;
pub use snapshot::{Dirty, Snapshot};
pub use unreadable::Unreadable;
pub use warning::Warning;

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// An IP family as a value. Where code is compiled once for each family, see [`lb_common::IpFamily`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both, in the order of display.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
