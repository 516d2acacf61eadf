//! Kubernetes' objects with the fields that the agent uses, as the API server and files give them.
//!
//! All other fields are skipped, whatever their type. A field that a newer Kubernetes adds, or that holds null where the
//! schema wants a value, does not keep the object from being read. null counts as absent everywhere, including the items
//! of lists and the values of maps.
//! Names and nesting are those of the API: <https://kubernetes.io/docs/reference/kubernetes-api/>.
mod decode;
mod endpoints;
mod node;
mod pod;
mod service;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use decode::{map, moment};

pub use endpoints::{
    Endpoint, EndpointAddress, EndpointPort, EndpointSlice, Endpoints, Hints, SubsetPort,
};
pub use node::{Node, ServiceCidr};
pub use pod::Pod;
pub use service::{Service, ServiceSpec};

/// `ObjectMeta`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    #[serde(deserialize_with = "map")]
    pub labels: BTreeMap<String, String>,
    /// A value that is not a time counts as absent.
    #[serde(deserialize_with = "moment")]
    pub creation_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "moment")]
    pub deletion_timestamp: Option<Timestamp>,
}

/// An object of the API.
pub trait Object:
    for<'de> Deserialize<'de> + Clone + std::fmt::Debug + Send + Sync + 'static
{
    const KIND: &'static str;
    /// The group of the API; empty for the core.
    const GROUP: &'static str;
    /// The name of the kind in addresses of the API.
    const PLURAL: &'static str;
    /// Its name and labels.
    fn metadata(&self) -> &Metadata;
}

macro_rules! object {
    ($type:ty, $kind:literal, $group:literal, $plural:literal) => {
        impl Object for $type {
            const KIND: &'static str = $kind;
            const GROUP: &'static str = $group;
            const PLURAL: &'static str = $plural;
            fn metadata(&self) -> &Metadata {
                &self.metadata
            }
        }
    };
}
object!(Service, "Service", "", "services");
object!(Pod, "Pod", "", "pods");
object!(Node, "Node", "", "nodes");
object!(Endpoints, "Endpoints", "", "endpoints");
object!(
    EndpointSlice,
    "EndpointSlice",
    "discovery.k8s.io",
    "endpointslices"
);
object!(
    ServiceCidr,
    "ServiceCIDR",
    "networking.k8s.io",
    "servicecidrs"
);

#[cfg(test)]
mod tests;
