//! Where the tables of questions come from, and where the packet is asked about.
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use lb_common::{DeviceEntry, DeviceFlags};

use super::{
    ENTERS, Names, Origin, Question, Tracer,
    live::{Live, Way},
};
use crate::{
    agent::{Agent, Event, Settings, Source, View},
    maps::{bpf::BpfMaps, fake::FakeMaps, read_contents},
    model::{DetectLocal, Family, Place, Warning},
    watch::manifests::Folder,
};

/// Where packets pass: the node as the agent knows it.
#[derive(Debug)]
pub struct NodeContext {
    place: Place,
    /// What flags say of every device.
    device: DeviceEntry,
    /// The devices themselves, where they are here.
    live: Option<Live>,
}

impl NodeContext {
    /// A node whose devices have the addresses that are said of it, and loopback. Whatever machine asks, its own do not
    /// count.
    pub fn new(mut place: Place) -> Self {
        let loopback = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        place.local_addresses.extend(loopback);
        place.local_addresses.extend(&place.addresses);
        place.has_node_device = true;
        let mut device = DeviceEntry::default();
        if let Some(IpAddr::V4(address)) = place.primary_address(Family::V4) {
            device.masquerade_v4 = address.into();
        }
        if let Some(IpAddr::V6(address)) = place.primary_address(Family::V6) {
            device.masquerade_v6 = address.into();
        }
        Self {
            place,
            device,
            live: None,
        }
    }

    /// Whether the node itself has this address.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        let is_here = |live: &Live| live.way(address) == Some(Way::Here);
        address.is_loopback()
            || self.place.local_addresses.contains(&address)
            || self.live.as_ref().is_some_and(is_here)
    }

    /// The device that a packet enters by. Where devices tell pods from others, a pod comes by one of theirs, whatever
    /// its name; who else does is known by the name alone.
    pub(super) fn entrance(&self, question: &Question, origin: Origin) -> DeviceEntry {
        let name = question.interface.as_deref();
        if let Some(found) = self
            .live
            .as_ref()
            .zip(name)
            .map(|(live, name)| live.device(name))
        {
            return found.unwrap_or(self.device);
        }
        let is_pod = origin == Origin::Pod;
        let is_of_pods = match &self.place.detect_local {
            DetectLocal::InterfacePrefix(prefix) => {
                name.map_or(is_pod, |name| name.starts_with(prefix.as_str()))
            }
            DetectLocal::Bridge(bridge) => is_pod || name == Some(bridge.as_str()),
            DetectLocal::ClusterCidr | DetectLocal::NodeCidr | DetectLocal::None => {
                is_pod && self.live.as_ref().is_some_and(Live::has_devices_of_pods)
            }
        };
        let flags = if is_of_pods {
            DeviceFlags::PODS
        } else {
            DeviceFlags::NONE
        };
        DeviceEntry {
            flags,
            ..self.device
        }
    }

    /// The device by which a process's packet enters that is not translated at its socket.
    pub(super) fn node_device(&self) -> DeviceEntry {
        DeviceEntry {
            flags: DeviceFlags::NODE.with(DeviceFlags::PODS),
            node_device: ENTERS,
            ..self.device
        }
    }

    /// The device that a packet to this address leaves by.
    pub(super) fn exit(&self, destination: IpAddr) -> DeviceEntry {
        let by_route = |live: &Live| match live.way(destination)? {
            Way::By(index) => live.device_at(index),
            Way::Here => None,
        };
        self.live.as_ref().and_then(by_route).unwrap_or(self.device)
    }

    /// Where a packet comes from, and where nobody has said so, why it comes from there.
    pub(super) fn origin(&self, question: &Question) -> (Origin, Option<String>) {
        if let Some(origin) = question.origin {
            return (origin, None);
        }
        let source = question.source.ip();
        if self.is_own(source) {
            let why = format!("{source} is the node's own address");
            return (Origin::Host, Some(why));
        }
        let mut prefixes = self.place.cluster_cidrs.iter();
        if let Some(prefix) = prefixes.find(|prefix| prefix.contains(&source)) {
            let why = format!("{source} is in the cluster CIDR {prefix}");
            return (Origin::Pod, Some(why));
        }
        let why = format!("{source} is neither the node's own address nor in a cluster CIDR");
        (Origin::Outside, Some(why))
    }
}

/// What was read, and what is wrong with it.
#[derive(Debug)]
pub struct Read {
    /// Answers questions.
    pub tracer: Tracer,
    /// What the agent would warn of.
    pub warnings: Vec<Warning>,
}

impl Tracer {
    /// Over what the agent would write into empty maps if it served the manifests in this folder.
    ///
    /// # Errors
    /// If the folder cannot be listed, or nothing of what is in it can be read.
    pub fn of_manifests(folder: &Path, settings: Settings) -> Result<Read> {
        std::fs::read_dir(folder).with_context(|| {
            format!(
                "{} cannot be listed: name a folder with YAML or JSON files",
                folder.display()
            )
        })?;
        let node = NodeContext::new(settings.place);
        let settings = Settings {
            place: node.place.clone(),
            sources: BTreeSet::from([Source::Manifests]),
            ..settings
        };
        let mut agent = Agent::new(settings, FakeMaps::default())?;
        let reading = Folder::new(folder.to_owned()).read();
        let warnings = reading.warnings.unwrap_or_default();
        let objects = reading.objects.unwrap_or_default();
        if reading.is_empty {
            let mut told = vec![format!(
                "nothing in {} can be read: it needs YAML or JSON files with Services, and Pods or EndpointSlices",
                folder.display()
            )];
            told.extend(warnings.iter().map(ToString::to_string));
            bail!(told.join("\n"));
        }
        let now = Duration::ZERO;
        agent.handle(
            Event::Trouble {
                source: Source::Manifests,
                warnings,
            },
            now,
        );
        agent.handle(
            Event::Replaced {
                services: objects.services,
                slices: objects.slices,
                service_cidrs: objects.service_cidrs,
                vanished_pods: Vec::new(),
                is_complete: objects.is_complete,
            },
            now,
        );
        agent.reconcile(&|| now);
        let view = agent.view(now);
        let maps = agent.maps().contents.clone();
        Ok(Read {
            tracer: Self::new(maps, Names::of(&view), node),
            warnings: view.warnings,
        })
    }

    /// Over the maps that are pinned in this folder, as they are now. `view` tells the names, if an agent runs.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn of_pinned(folder: &Path, view: Option<&View>, place: Place) -> Result<Self> {
        let maps = read_contents(&BpfMaps::open(folder)?)?;
        let names = view.map_or_else(Names::default, Names::of);
        let node = NodeContext {
            live: Some(Live::open(folder)?),
            ..NodeContext::new(place)
        };
        Ok(Self::new(maps, names, node))
    }
}
