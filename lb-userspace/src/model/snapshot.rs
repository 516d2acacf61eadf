//! The whole model at a moment, and which Services a change of it concerns.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{
    DeviceAddresses, EndpointSlice, Family, Node, Place, Service, ServiceCidr, ServiceName,
    SliceName, Warning,
    service_cidr::{self, ServiceCidrs},
};

/// Everything that is known. Each method that changes it returns the Services that have to be looked at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    services: BTreeMap<ServiceName, Service>,
    /// Slices by the Service they belong to; never an empty map inside.
    slices: BTreeMap<ServiceName, BTreeMap<SliceName, EndpointSlice>>,
    /// Which Service each slice belongs to.
    owners: BTreeMap<SliceName, ServiceName>,
    /// What is said of the own node by flags, and counts where no Node is known.
    configured: Place,
    /// What the own Node says, if it is known.
    node: Option<Node>,
    /// Prefixes that Services get their addresses from, beside those that flags name.
    service_cidrs: ServiceCidrs,
    /// All of it laid over what flags say.
    place: Place,
}

/// Services to look at again.
pub type Dirty = BTreeSet<ServiceName>;

impl Snapshot {
    /// Nothing is known yet but where the agent runs.
    pub fn new(place: Place) -> Self {
        Self {
            place: place.clone(),
            configured: place,
            ..Self::default()
        }
    }

    /// A Service.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }
    /// All Services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }
    /// A Service's slices, by name.
    pub fn slices_of(&self, name: &ServiceName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.get(name).into_iter().flat_map(BTreeMap::values)
    }
    /// All slices.
    pub fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.values().flat_map(BTreeMap::values)
    }
    /// Where this agent's clients are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A Service is new or has changed.
    pub fn apply_service(&mut self, service: Service) -> Option<ServiceName> {
        if self.services.get(&service.name) == Some(&service) {
            return None;
        }
        let name = service.name.clone();
        self.services.insert(name.clone(), service);
        Some(name)
    }

    /// A Service is no more.
    pub fn delete_service(&mut self, name: &ServiceName) -> Option<ServiceName> {
        self.services.remove(name).map(|service| service.name)
    }

    /// A slice is new or has changed; it may have gone over to another Service.
    pub fn apply_slice(&mut self, slice: EndpointSlice) -> Dirty {
        let known = self.slices.get(&slice.service);
        if known.and_then(|slices| slices.get(&slice.name)) == Some(&slice) {
            return Dirty::new();
        }
        let mut dirty = self.delete_slice(&slice.name);
        dirty.insert(slice.service.clone());
        self.owners
            .insert(slice.name.clone(), slice.service.clone());
        self.slices
            .entry(slice.service.clone())
            .or_default()
            .insert(slice.name.clone(), slice);
        dirty
    }

    /// A slice is no more.
    pub fn delete_slice(&mut self, name: &SliceName) -> Dirty {
        let Some(service) = self.owners.remove(name) else {
            return Dirty::new();
        };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        Dirty::from([service])
    }

    /// These are all Services there are: what is not among them was deleted, seen or unseen.
    pub fn replace_services(&mut self, services: Vec<Service>) -> Dirty {
        let listed: BTreeSet<&ServiceName> = services.iter().map(|service| &service.name).collect();
        let gone = self.services.keys().filter(|name| !listed.contains(name));
        let mut dirty: Dirty = gone.cloned().collect();
        for name in &dirty {
            self.delete_service(name);
        }
        dirty.extend(
            services
                .into_iter()
                .filter_map(|service| self.apply_service(service)),
        );
        dirty
    }

    /// These are all slices there are: what is not among them was deleted, seen or unseen.
    pub fn replace_slices(&mut self, slices: Vec<EndpointSlice>) -> Dirty {
        let listed: BTreeSet<&SliceName> = slices.iter().map(|slice| &slice.name).collect();
        let gone = self.owners.keys().filter(|name| !listed.contains(name));
        let gone: Vec<SliceName> = gone.cloned().collect();
        let mut dirty = Dirty::new();
        for name in &gone {
            dirty.extend(self.delete_slice(name));
        }
        for slice in slices {
            dirty.extend(self.apply_slice(slice));
        }
        dirty
    }

    /// All `ServiceCIDR`s.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &ServiceCidr> {
        self.service_cidrs.values()
    }

    /// The own node is new, has changed, or is no more. If it is another place, endpoints are near or far anew.
    pub fn set_node(&mut self, node: Option<Node>) -> Dirty {
        self.node = node;
        self.set_place()
    }

    /// The own node, if its object is known.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// A `ServiceCIDR` is new or has changed.
    pub fn apply_service_cidr(&mut self, object: ServiceCidr) -> Dirty {
        self.service_cidrs.insert(object.name.clone(), object);
        self.set_place()
    }

    /// A `ServiceCIDR` is no more.
    pub fn delete_service_cidr(&mut self, name: &str) -> Dirty {
        self.service_cidrs.remove(name);
        self.set_place()
    }

    /// These are all `ServiceCIDR`s there are.
    pub fn replace_service_cidrs(&mut self, objects: Vec<ServiceCidr>) -> Dirty {
        let objects = objects.into_iter();
        self.service_cidrs = objects.map(|it| (it.name.clone(), it)).collect();
        self.set_place()
    }

    /// What of the `ServiceCIDR`s does not count.
    pub fn service_cidr_warnings(&self) -> Vec<Warning> {
        service_cidr::warnings(&self.service_cidrs, &self.place.service_cidrs)
    }

    /// The node's devices have these addresses.
    pub fn set_device_addresses(&mut self, addresses: DeviceAddresses) -> Dirty {
        self.configured.local_addresses = addresses.local;
        self.configured.ipvs_addresses = addresses.of_ipvs;
        self.set_place()
    }

    fn set_place(&mut self) -> Dirty {
        let mut place = match &self.node {
            Some(node) => self.configured.described_by(node),
            None => self.configured.clone(),
        };
        place.service_cidrs =
            service_cidr::union(&self.configured.service_cidrs, &self.service_cidrs);
        std::mem::swap(&mut self.place, &mut place);
        let (before, after) = (place, &self.place);
        let served = |place: &Place| Family::ALL.map(|family| place.node_port_addresses(family));
        let has_moved = served(&before) != served(after);
        let local = before
            .local_addresses
            .symmetric_difference(&after.local_addresses);
        let of_ipvs = before
            .ipvs_addresses
            .symmetric_difference(&after.ipvs_addresses);
        let moved: BTreeSet<IpAddr> = local.chain(of_ipvs).copied().collect();
        // Where addresses come from that no Service has is no Service's concern.
        let is_another = Place {
            local_addresses: after.local_addresses.clone(),
            ipvs_addresses: after.ipvs_addresses.clone(),
            service_cidrs: after.service_cidrs.clone(),
            ..before
        } != *after;
        let concerned = self.services.values().filter(|service| {
            let mut ports = service.ports.iter();
            let own = service.cluster_ips.iter().chain(&service.balancer_ips);
            let mut own = own.chain(&service.external_ips);
            is_another
                || has_moved && ports.any(|port| port.node_port.is_some())
                || own.any(|it| moved.contains(it))
        });
        concerned.map(|service| service.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodePortAddresses;

    fn slice(name: &str, service: &str) -> EndpointSlice {
        EndpointSlice {
            name: SliceName::new("default", name),
            service: ServiceName::new("default", service),
            family: Family::V4,
            ports: Vec::new(),
            endpoints: Vec::new(),
            warnings: Vec::new(),
        }
    }
    fn dirty(names: &[&str]) -> Dirty {
        names
            .iter()
            .map(|name| ServiceName::new("default", *name))
            .collect()
    }

    #[test]
    fn a_slice_that_changes_its_service_concerns_both() {
        let mut snapshot = Snapshot::default();
        assert_eq!(snapshot.apply_slice(slice("a", "web")), dirty(&["web"]));
        assert_eq!(
            snapshot.apply_slice(slice("a", "shop")),
            dirty(&["shop", "web"])
        );
        assert_eq!(
            snapshot
                .slices_of(&ServiceName::new("default", "web"))
                .count(),
            0
        );
    }

    #[test]
    fn another_zone_of_the_node_concerns_all_services() {
        let place = |zone: &str| Place {
            node: "node-1".to_owned(),
            zone: Some(zone.to_owned()),
            ..Place::default()
        };
        let node = |zone: &str| Node {
            name: "node-1".to_owned(),
            zone: Some(zone.to_owned()),
            ..Node::default()
        };
        let mut snapshot = Snapshot::new(place("a"));
        for name in ["web", "shop"] {
            let mut service = crate::convert::service(&crate::objects::Service::default());
            service.name = ServiceName::new("default", name);
            assert!(snapshot.apply_service(service).is_some());
        }
        assert_eq!(
            snapshot.set_node(Some(node("a"))),
            dirty(&[]),
            "as the flags said"
        );
        assert_eq!(snapshot.set_node(Some(node("b"))), dirty(&["shop", "web"]));
        assert_eq!(snapshot.place(), &place("b"));
        assert_eq!(snapshot.set_node(Some(node("b"))), dirty(&[]));
        assert_eq!(
            snapshot.set_node(None),
            dirty(&["shop", "web"]),
            "the flags again"
        );
    }

    #[test]
    fn another_address_of_a_device_concerns_services_with_node_ports_if_they_are_served_there() {
        let addresses = |last: u8| BTreeSet::from([IpAddr::from([192, 0, 2, last])]);
        for (nodeport_addresses, concerned) in [
            (vec![NodePortAddresses::All], &["door"][..]),
            (vec![NodePortAddresses::Primary], &[]),
        ] {
            let mut snapshot = Snapshot::new(Place {
                nodeport_addresses,
                ..Place::default()
            });
            let local = |local| DeviceAddresses {
                local,
                ..DeviceAddresses::default()
            };
            for (name, node_port) in [("web", None), ("door", Some(30080))] {
                let object = serde_json::json!({
                    "metadata": {"name": name},
                    "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": node_port}]},
                });
                let object = serde_json::from_value(object).unwrap();
                assert!(
                    snapshot
                        .apply_service(crate::convert::service(&object))
                        .is_some()
                );
            }
            assert_eq!(
                snapshot.set_device_addresses(local(addresses(1))),
                dirty(concerned)
            );
            assert_eq!(
                snapshot.set_device_addresses(local(addresses(1))),
                dirty(&[])
            );
            assert_eq!(
                snapshot.set_device_addresses(local(addresses(2))),
                dirty(concerned)
            );
            let of_both = BTreeSet::from([IpAddr::from([10, 96, 0, 1])]);
            assert_eq!(
                snapshot.set_device_addresses(local(of_both)),
                dirty(&["door", "web"]),
                "their cluster address is the node's own now"
            );
        }
    }

    #[test]
    fn what_is_applied_unchanged_concerns_nobody() {
        let mut snapshot = Snapshot::default();
        snapshot.apply_slice(slice("a", "web"));
        assert_eq!(snapshot.apply_slice(slice("a", "web")), dirty(&[]));
    }

    #[test]
    fn a_repeated_list_finds_the_deletions_that_were_missed() {
        let mut snapshot = Snapshot::default();
        snapshot.replace_slices(vec![slice("a", "web"), slice("b", "shop")]);
        assert_eq!(
            snapshot.replace_slices(vec![slice("a", "web")]),
            dirty(&["shop"])
        );
        assert_eq!(snapshot.slices().count(), 1);
    }
}
