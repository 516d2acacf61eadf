//! What the agent knows from its sources.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    agent::{Settings, Source, milliseconds, view::SourceView},
    desired::{self, DesiredService},
    findings::node_ports::NodePort,
    health::Check,
    model::{
        Dirty, EndpointSlice, Family, Node, ObjectName, Service, ServiceCidr, ServiceName,
        Snapshot, Unreadable, Warning,
    },
};

/// What is known of a source.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    listed: bool,
    /// Something of it could never be read.
    is_partial: bool,
    last_event: Option<Duration>,
}

/// The cluster as the sources describe it, and what is known of the sources.
#[derive(Debug)]
pub(super) struct Knowledge {
    pub(super) snapshot: Snapshot,
    sources: BTreeMap<Source, Seen>,
    /// The warnings of each source about itself.
    trouble: BTreeMap<Source, Vec<Warning>>,
    /// The objects of each source that cannot be read.
    unreadable: BTreeMap<Source, Vec<Unreadable>>,
    /// When each Service or its endpoints last changed.
    changed: BTreeMap<ServiceName, Duration>,
}

impl Knowledge {
    pub(super) fn new(settings: &Settings) -> Self {
        let sources = settings.sources.iter();
        Self {
            snapshot: Snapshot::new(settings.place.clone()),
            sources: sources.map(|it| (*it, Seen::default())).collect(),
            trouble: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            changed: BTreeMap::new(),
        }
    }

    /// An event came from a source; `listed` if it says all that there is.
    pub(super) fn seen(&mut self, source: Source, listed: bool, now: Duration) {
        let seen = self.sources.entry(source).or_default();
        if listed && !seen.listed {
            info!(%source, "first list");
        }
        seen.listed |= listed;
        seen.last_event = Some(now);
    }

    /// Whether a part of what the source has could never be read.
    pub(super) fn set_partial(&mut self, source: Source, is_partial: bool) {
        self.sources.entry(source).or_default().is_partial = is_partial;
    }

    /// Whether a part of what any source has could never be read.
    pub(super) fn is_partial(&self) -> bool {
        self.sources.values().any(|source| source.is_partial)
    }

    /// The sources that nothing can be written without and that have not listed yet.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Source> {
        let awaited = self
            .sources
            .iter()
            .filter(|(source, seen)| !seen.listed && **source != Source::Node);
        awaited.map(|(source, _)| *source)
    }

    /// A source warns about itself, or no longer does.
    pub(super) fn set_trouble(&mut self, source: Source, warnings: Vec<Warning>) {
        let known = self.trouble.get(&source).map_or(&[][..], Vec::as_slice);
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            warn!("{warning}");
        }
        if warnings.is_empty() && !known.is_empty() {
            info!(%source, "no more trouble");
        }
        self.trouble.insert(source, warnings);
    }

    /// Sets the objects of the source that cannot be read. Returns the Services whose warnings may have changed.
    pub(super) fn set_unreadable(
        &mut self,
        source: Source,
        objects: Vec<Unreadable>,
    ) -> BTreeSet<ServiceName> {
        let before = self.unreadable.remove(&source).unwrap_or_default();
        for news in objects.iter().filter(|it| !before.contains(it)) {
            warn!("{}", news.warning);
        }
        let services = before.iter().chain(&objects);
        let services = services.filter_map(|it| it.service.clone()).collect();
        self.unreadable.insert(source, objects);
        services
    }

    /// The Service and the slices of it that cannot be read, with their source.
    pub(super) fn unreadable_of(
        &self,
        name: &ServiceName,
    ) -> impl Iterator<Item = (Source, &Unreadable)> {
        let all = self.unreadable.iter();
        let all = all.flat_map(|(source, objects)| objects.iter().map(|it| (*source, it)));
        all.filter(move |(_, it)| it.service.as_ref() == Some(name))
    }

    fn is_unreadable(&self, source: Source, name: &ObjectName) -> bool {
        self.unreadable_from(source).any(|it| it.name == *name)
    }

    fn unreadable_from(&self, source: Source) -> impl Iterator<Item = &Unreadable> {
        self.unreadable.get(&source).into_iter().flatten()
    }

    /// A list of Services together with the last good state of those that cannot be read.
    pub(super) fn with_kept_services(&self, mut listed: Vec<Service>) -> Vec<Service> {
        listed.extend(self.unreadable_from(Source::Services).filter_map(|it| {
            let service = self.snapshot.service(&it.name)?;
            (service.uid == it.uid).then(|| service.clone())
        }));
        listed
    }

    /// The same for slices.
    pub(super) fn with_kept_slices(&self, mut listed: Vec<EndpointSlice>) -> Vec<EndpointSlice> {
        let kept = self.snapshot.slices();
        let kept = kept.filter(|it| self.is_unreadable(Source::EndpointSlices, &it.name));
        listed.extend(kept.cloned());
        listed
    }

    /// The same for `ServiceCIDR`s.
    pub(super) fn with_kept_service_cidrs(&self, mut listed: Vec<ServiceCidr>) -> Vec<ServiceCidr> {
        let kept = self.snapshot.service_cidrs().filter(|kept| {
            let mut unreadable = self.unreadable_from(Source::ServiceCidrs);
            unreadable.any(|it| it.name.name == kept.name)
        });
        listed.extend(kept.cloned());
        listed
    }

    /// The same for the own node.
    pub(super) fn or_kept_node(&self, node: Option<Node>) -> Option<Node> {
        let is_kept = self.unreadable_from(Source::Node).next().is_some();
        node.or_else(|| self.snapshot.node().filter(|_| is_kept).cloned())
    }

    /// A Service or its endpoints changed.
    pub(super) fn note_change(&mut self, name: &ServiceName, now: Duration) {
        if self.snapshot.service(name).is_some() {
            self.changed.insert(name.clone(), now);
        } else {
            self.changed.remove(name);
        }
    }

    /// When the Service or its endpoints last changed.
    pub(super) fn changed(&self, name: &ServiceName) -> Option<Duration> {
        self.changed.get(name).copied()
    }

    /// All Services.
    pub(super) fn all_services(&self) -> Dirty {
        let services = self.snapshot.services();
        services.map(|service| service.name.clone()).collect()
    }

    /// What a Service should be, by names and addresses.
    pub(super) fn wanted(&self, name: &ServiceName) -> Vec<DesiredService> {
        match self.snapshot.service(name) {
            Some(service) => {
                let slices: Vec<_> = self.snapshot.slices_of(name).collect();
                desired::services(service, &slices, self.snapshot.place())
            }
            None => Vec::new(),
        }
    }

    /// The Service's health check, if it asks for one.
    pub(super) fn check(&self, name: &ServiceName) -> Option<Check> {
        let service = self.snapshot.service(name)?;
        let port = service.health_check_port?;
        let place = self.snapshot.place();
        let slices: Vec<_> = self.snapshot.slices_of(name).collect();
        let families = service.cluster_ips.iter().map(|it| Family::of(*it));
        let ready = |family| desired::local_ready(service, &slices, family, place);
        let local_endpoints = families.map(|it| (it, ready(it))).collect();
        Some(Check {
            port,
            local_endpoints,
        })
    }

    /// The node ports of a Service, and its uid.
    pub(super) fn node_ports(&self, name: &ServiceName) -> (String, BTreeSet<NodePort>) {
        let service = self.snapshot.service(name);
        let served = service.filter(|it| it.not_served.is_none());
        let ports = served.into_iter().flat_map(|service| {
            let families = Family::ALL.into_iter();
            let families = families.filter(|it| service.cluster_ip(*it).is_some());
            families.flat_map(|family| {
                let ports = service.ports.iter();
                ports.filter_map(move |port| {
                    Some(NodePort {
                        family,
                        protocol: port.protocol,
                        number: port.node_port?,
                    })
                })
            })
        });
        let uid = service.map_or_else(String::new, |it| it.uid.clone());
        (uid, ports.collect())
    }

    /// The addresses at which load balancers ask about Services.
    pub(super) fn health_check_addresses(&self) -> BTreeSet<IpAddr> {
        let place = self.snapshot.place();
        let families = Family::ALL.into_iter();
        families
            .flat_map(|family| place.health_check_addresses(family))
            .collect()
    }

    /// The addresses at which node ports are served.
    pub(super) fn node_port_addresses(&self) -> BTreeSet<IpAddr> {
        let place = self.snapshot.place();
        let families = Family::ALL.into_iter();
        families
            .flat_map(|family| place.node_port_addresses(family))
            .collect()
    }

    /// Whether new connections may come to this node: it is known, and not about to leave.
    pub(super) fn is_node_eligible(&self) -> bool {
        match self.snapshot.node() {
            Some(node) => !node.leaving,
            None => !self.sources.contains_key(&Source::Node),
        }
    }

    /// What is wrong with a Service and its slices.
    pub(super) fn warnings_about(&self, name: &ServiceName) -> Vec<&Warning> {
        let service = self
            .snapshot
            .service(name)
            .into_iter()
            .flat_map(|service| &service.warnings);
        let slices = self
            .snapshot
            .slices_of(name)
            .flat_map(|slice| &slice.warnings);
        service.chain(slices).collect()
    }

    /// What is wrong with the node's place, and with what is said of Services' addresses.
    pub(super) fn warnings_of_node(&self) -> Vec<Warning> {
        let cidrs = self.snapshot.service_cidr_warnings();
        let cidrs = cidrs.into_iter().chain(self.without_address());
        cidrs.chain(self.held_by_devices()).collect()
    }

    /// Cluster addresses that devices of the node have.
    fn held_by_devices(&self) -> impl Iterator<Item = Warning> {
        let own = &self.snapshot.place().local_addresses;
        let services = self.snapshot.services();
        let served = services.filter(|service| service.not_served.is_none());
        served.flat_map(move |service| {
            let addresses = service.cluster_ips.iter().filter(|it| own.contains(*it));
            addresses.map(|address| {
                Warning::new(
                    format!("Service {}", service.name),
                    format!(
                        "its ClusterIP {address} is on a device of this node; what is sent to it stays with the node's own listener"
                    ),
                    "none is needed where NodeLocal DNSCache listens there; otherwise remove the address from the device",
                )
            })
        })
    }

    /// Node ports need an address, and a node may have been given none.
    fn without_address(&self) -> Option<Warning> {
        let place = self.snapshot.place();
        let mut families = Family::ALL.into_iter();
        if families.any(|family| !place.node_port_addresses(family).is_empty()) {
            return None;
        }
        let mut ports = self.snapshot.services().flat_map(|service| &service.ports);
        let is_asked = ports.any(|port| port.node_port.is_some());
        is_asked.then(|| {
            Warning::new(
                format!("Node {}", place.node),
                "has no address that node ports could be served at, as far as is known",
                "name its own by --node-ip, or others by --nodeport-addresses",
            )
        })
    }

    /// The warnings about sources, the node, Services and slices.
    pub(super) fn warnings(&self, list_timeout: Duration, now: Duration) -> Vec<Warning> {
        let awaited = self.awaited().filter(|_| now >= list_timeout);
        let awaited = awaited.map(|source| {
            Warning::new(
                format!("Source {source}"),
                format!(
                    "has not sent its first list for {} s; nothing is written before",
                    now.as_secs()
                ),
                "check that it can be reached; until then the maps stay as they were at the start",
            )
        });
        let partial = self.sources.iter().filter(|(_, seen)| seen.is_partial);
        let partial = partial.map(|(source, _)| {
            Warning::new(
                format!("Source {source}"),
                "has something that could not be read since the agent's start; the maps keep what an earlier run left",
                "correct or remove what cannot be read, which is named here as well",
            )
        });
        let unreadable = self.unreadable.values().flatten().map(|it| &it.warning);
        let services = self.snapshot.services().flat_map(|it| &it.warnings);
        let slices = self.snapshot.slices().flat_map(|it| &it.warnings);
        let objects = self
            .trouble
            .values()
            .flatten()
            .chain(unreadable)
            .chain(services)
            .chain(slices);
        let of_sources = awaited.chain(partial).chain(self.warnings_of_node());
        of_sources.chain(objects.cloned()).collect()
    }

    pub(super) fn source_views(&self, now: Duration) -> Vec<SourceView> {
        let views = self.sources.iter().map(|(source, seen)| SourceView {
            source: *source,
            listed: seen.listed,
            last_event_ms: seen
                .last_event
                .map(|moment| milliseconds(now.saturating_sub(moment))),
        });
        views.collect()
    }
}
