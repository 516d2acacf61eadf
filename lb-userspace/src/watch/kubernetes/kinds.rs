//! Which event each kind of object makes.
use crate::{
    agent::{Event, Source},
    convert,
    model::ObjectName,
    objects::{EndpointSlice, Node, Object, Service, ServiceCidr},
};

/// A kind that the agent watches.
pub(super) trait Watched: Object {
    const SOURCE: Source;
    /// What it means if the API server does not know the kind, or does not let the agent read it; `None` if the agent
    /// cannot do without.
    const WITHOUT: Option<&'static str> = None;
    /// These are all there are.
    fn listed(objects: &[Self]) -> Event;
    /// It is new or has changed.
    fn applied(&self) -> Event;
    /// It is no more.
    fn deleted(name: ObjectName) -> Event;
}

impl Watched for Service {
    const SOURCE: Source = Source::Services;
    fn listed(objects: &[Self]) -> Event {
        Event::ServicesListed(objects.iter().map(convert::service).collect())
    }
    fn applied(&self) -> Event {
        Event::ServiceApplied(Box::new(convert::service(self)))
    }
    fn deleted(name: ObjectName) -> Event {
        Event::ServiceDeleted(name)
    }
}

impl Watched for EndpointSlice {
    const SOURCE: Source = Source::EndpointSlices;
    fn listed(objects: &[Self]) -> Event {
        Event::SlicesListed(objects.iter().filter_map(convert::endpoint_slice).collect())
    }
    fn applied(&self) -> Event {
        match convert::endpoint_slice(self) {
            Some(slice) => Event::SliceApplied(Box::new(slice)),
            // It belongs to no Service, or to none any more.
            None => Self::deleted(convert::object_name(&self.metadata)),
        }
    }
    fn deleted(name: ObjectName) -> Event {
        Event::SliceDeleted(name)
    }
}

impl Watched for Node {
    const SOURCE: Source = Source::Node;
    fn listed(objects: &[Self]) -> Event {
        Event::NodeChanged(objects.first().map(|node| Box::new(convert::node(node))))
    }
    fn applied(&self) -> Event {
        Event::NodeChanged(Some(Box::new(convert::node(self))))
    }
    fn deleted(_: ObjectName) -> Event {
        Event::NodeChanged(None)
    }
}

impl Watched for ServiceCidr {
    const SOURCE: Source = Source::ServiceCidrs;
    const WITHOUT: Option<&'static str> =
        Some("--service-cidr alone says where Services get their addresses");
    fn listed(objects: &[Self]) -> Event {
        Event::ServiceCidrsListed(objects.iter().map(convert::service_cidr).collect())
    }
    fn applied(&self) -> Event {
        Event::ServiceCidrApplied(Box::new(convert::service_cidr(self)))
    }
    fn deleted(name: ObjectName) -> Event {
        Event::ServiceCidrDeleted(name.name)
    }
}
