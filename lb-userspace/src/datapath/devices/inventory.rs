//! What netlink tells of the network namespace: devices, addresses, routing rules.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink says more than anybody asked for, and more with every kernel"
)]
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::LinkMessage,
    rule::{RuleAction, RuleMessage},
};

use crate::{
    datapath::devices::{
        clsact::Route,
        device::{Device, DeviceAddress},
    },
    model::DeviceAddresses,
};

/// The network namespace as far as it matters.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// By index.
    pub(crate) devices: BTreeMap<u32, Device>,
    /// In the kernel's order, which says which one is a device's first.
    pub(crate) addresses: Vec<DeviceAddress>,
    /// Those that lead to other tables than the kernel's own rules do.
    pub(crate) rules: Vec<RuleMessage>,
}

/// Which devices a message is about.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// These are new, have changed, or somebody has changed what hangs on them.
    pub(crate) changed: BTreeSet<u32>,
    /// These have left the network namespace.
    pub(crate) gone: BTreeSet<u32>,
    /// An address or a routing rule is another.
    pub(crate) is_readdressed: bool,
}

impl Touched {
    /// Whether there is nothing to do.
    pub(crate) fn is_nothing(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty() && !self.is_readdressed
    }
}

impl Inventory {
    /// Asks for everything.
    pub(crate) fn read(netlink: &mut Route) -> io::Result<Self> {
        Ok(Self {
            devices: devices_by_index(netlink)?,
            addresses: addresses(netlink)?,
            rules: rules(netlink)?,
        })
    }

    /// Takes notice of a message.
    pub(crate) fn take(&mut self, message: RouteNetlinkMessage, touched: &mut Touched) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                let device = Device::from_message(&message);
                if let Some(device) = device.filter(|device| self.is_news(device)) {
                    touched.gone.remove(&device.index);
                    touched.changed.insert(device.index);
                    self.devices.insert(device.index, device);
                }
            }
            // A bridge says of a port that leaves it that a link is deleted, too: in its own family.
            RouteNetlinkMessage::DelLink(message)
                if message.header.interface_family == AddressFamily::Unspec =>
            {
                let index = message.header.index;
                self.forget(index);
                touched.changed.remove(&index);
                touched.gone.insert(index);
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some(address) = DeviceAddress::from_message(&message) {
                    let mut known = self.addresses.iter_mut();
                    let known = known.find(|known| known.is_at(&address));
                    // The kernel also tells of a lifetime that a router has renewed, and of each link-local address.
                    let before = known.as_ref().map(|known| **known);
                    touched.is_readdressed |= before != Some(address)
                        && (address.matters() || before.is_some_and(|it| it.matters()));
                    match known {
                        Some(known) => *known = address,
                        None => self.addresses.push(address),
                    }
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some(gone) = DeviceAddress::from_message(&message) {
                    let mut known = self.addresses.iter();
                    touched.is_readdressed |=
                        known.any(|known| known.is_at(&gone) && known.matters());
                    self.addresses.retain(|known| !known.is_at(&gone));
                }
            }
            RouteNetlinkMessage::NewRule(message) if leads_elsewhere(&message) => {
                touched.is_readdressed = true;
                self.rules.push(message);
            }
            RouteNetlinkMessage::DelRule(message) => {
                touched.is_readdressed = true;
                let place = self.rules.iter().position(|known| *known == message);
                place.map(|place| self.rules.swap_remove(place));
            }
            RouteNetlinkMessage::NewTrafficFilter(message)
            | RouteNetlinkMessage::DelTrafficFilter(message)
            | RouteNetlinkMessage::DelQueueDiscipline(message) => {
                touched.changed.insert(message.header.index.cast_unsigned());
            }
            _ => {}
        }
    }

    /// The addresses that the node answers to, and apart from them those that kube-proxy's ipvs mode has given to a device of
    /// its own: they are frontends.
    pub(crate) fn device_addresses(&self) -> DeviceAddresses {
        let is_of_ipvs = |address: &&DeviceAddress| {
            let device = self.devices.get(&address.index);
            device.is_some_and(|device| device.name == IPVS_DEVICE)
        };
        let local = self.addresses.iter().filter(|address| address.local);
        let (of_ipvs, local): (Vec<_>, Vec<_>) = local.partition(is_of_ipvs);
        let [local, of_ipvs] = [local, of_ipvs].map(|some: Vec<&DeviceAddress>| {
            let addresses = some.into_iter().map(|it| it.address);
            addresses.collect()
        });
        DeviceAddresses { local, of_ipvs }
    }

    /// Forgets a device and all that hung on it.
    pub(crate) fn forget(&mut self, index: u32) {
        self.devices.remove(&index);
        self.addresses.retain(|address| address.index != index);
    }

    fn is_news(&self, device: &Device) -> bool {
        self.devices.get(&device.index) != Some(device)
    }
}

/// Where kube-proxy's ipvs mode puts every frontend (`pkg/proxy/ipvs`, `defaultDummyDevice`).
const IPVS_DEVICE: &str = "kube-ipvs0";

fn devices_by_index(netlink: &mut Route) -> io::Result<BTreeMap<u32, Device>> {
    let devices = devices(netlink)?.into_iter();
    Ok(devices.map(|device| (device.index, device)).collect())
}

fn addresses(netlink: &mut Route) -> io::Result<Vec<DeviceAddress>> {
    let dump = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let messages = dump.messages.iter();
    Ok(messages
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => DeviceAddress::from_message(message),
            _ => None,
        })
        .collect())
}

/// The devices of the socket's network namespace.
pub(crate) fn devices(netlink: &mut Route) -> io::Result<Vec<Device>> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let dump = netlink.dump(question)?;
    Ok(dump
        .messages
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Device::from_message(message),
            _ => None,
        })
        .collect())
}

/// The routing rules of both families that lead to tables other than the kernel's own (local, main, default).
pub(crate) fn rules(netlink: &mut Route) -> io::Result<Vec<RuleMessage>> {
    let dump = netlink.dump(RouteNetlinkMessage::GetRule(RuleMessage::default()))?;
    let messages = dump.messages.into_iter();
    Ok(messages
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRule(message) => Some(message),
            _ => None,
        })
        .filter(leads_elsewhere)
        .collect())
}

fn leads_elsewhere(rule: &RuleMessage) -> bool {
    let own = [
        libc::RT_TABLE_UNSPEC,
        libc::RT_TABLE_DEFAULT,
        libc::RT_TABLE_MAIN,
        libc::RT_TABLE_LOCAL,
    ];
    rule.header.action == RuleAction::ToTable && !own.contains(&rule.header.table)
}
