//! Everything that can happen to the agent.
use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    agent::view::View,
    desired::RestingBackend,
    model::{
        DeviceAddresses, EndpointSlice, Node, Service, ServiceCidr, ServiceName, SliceName,
        Unreadable, Warning,
    },
};

/// Where events come from. Each source says once what there is (its first list), and then what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// A folder of manifests: [`Event::Replaced`].
    Manifests,
    /// The API server's Services.
    Services,
    /// The API server's `EndpointSlices`.
    EndpointSlices,
    /// The agent's own Node. Nothing waits for it: it decides about preferences, not about who serves.
    Node,
    /// The API server's `ServiceCIDR`s. Where there are none to be had, the first list is empty.
    ServiceCidrs,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manifests => "manifests",
            Self::Services => "services",
            Self::EndpointSlices => "endpoint slices",
            Self::Node => "node",
            Self::ServiceCidrs => "service CIDRs",
        })
    }
}

/// What can happen. The agent's loop is the only reader.
#[derive(Debug)]
pub enum Event {
    /// The folder of manifests as a whole. What is not in it exists no longer.
    Replaced {
        /// All Services.
        services: Vec<Service>,
        /// All their endpoints.
        slices: Vec<EndpointSlice>,
        /// All prefixes that Services get their addresses from, beside those of flags.
        service_cidrs: Vec<ServiceCidr>,
        /// Uids of pods whose manifests have vanished since the last time: nobody answers there any more.
        vanished_pods: Vec<String>,
        /// False while a part of the folder could never be read: what stands there is not known.
        is_complete: bool,
    },
    /// All Services, after a first or a repeated list. What is not in it exists no longer.
    ServicesListed(Vec<Service>),
    /// A Service is new or has changed.
    ServiceApplied(Box<Service>),
    /// A Service was deleted.
    ServiceDeleted(ServiceName),
    /// All slices, after a first or a repeated list. What is not in it exists no longer.
    SlicesListed(Vec<EndpointSlice>),
    /// A slice is new or has changed.
    SliceApplied(Box<EndpointSlice>),
    /// A slice was deleted.
    SliceDeleted(SliceName),
    /// The own Node: new, changed, or absent.
    NodeChanged(Option<Box<Node>>),
    /// All `ServiceCIDR`s, after a first or a repeated list. What is not in it exists no longer.
    ServiceCidrsListed(Vec<ServiceCidr>),
    /// A `ServiceCIDR` is new or has changed.
    ServiceCidrApplied(Box<ServiceCidr>),
    /// A `ServiceCIDR` was deleted.
    ServiceCidrDeleted(String),
    /// All addresses of the node's devices.
    DeviceAddresses(DeviceAddresses),
    /// What troubles a source, as a whole: an empty list says that nothing does any more.
    Trouble {
        /// Which.
        source: Source,
        /// All there is to say about it.
        warnings: Vec<Warning>,
    },
    /// The objects of a source that cannot be read, all of them. Their last good state stays, also where a later list is
    /// without them.
    Unreadable {
        /// Which source.
        source: Source,
        /// Its objects.
        objects: Vec<Unreadable>,
    },
    /// Which backends rest, for a sweep of the flows. The sweep must start after the answer.
    Resting(oneshot::Sender<Vec<RestingBackend>>),
    /// A full sweep, started after [`Event::Resting`] was answered, has found no flow that refers to these backends:
    /// their ids are free. Those that came back to life meanwhile are passed over.
    Unreferenced(Vec<RestingBackend>),
    /// Somebody wants to see the state.
    View(oneshot::Sender<View>),
    /// The end of the loop. Maps stay as they are.
    Stop,
}
