//! What netlink tells of the network namespace: devices, addresses, default routes.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink says more than anybody asked for, and more with every kernel"
)]
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage, address::AddressMessage, link::LinkMessage,
    route::RouteMessage,
};

use super::{
    clsact::Route,
    device::{DefaultRoute, Device, DeviceAddress},
};

/// The network namespace as far as it matters.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// By index.
    pub(crate) devices: BTreeMap<u32, Device>,
    /// In the kernel's order, which says which one is a device's first.
    pub(crate) addresses: Vec<DeviceAddress>,
    /// Of both families.
    pub(crate) routes: Vec<DefaultRoute>,
}

/// Which devices a message is about.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// These are new, have changed, or somebody has changed what hangs on them.
    pub(crate) changed: BTreeSet<u32>,
    /// These have left the network namespace.
    pub(crate) gone: BTreeSet<u32>,
}

impl Inventory {
    /// Asks for everything.
    pub(crate) fn read(netlink: &mut Route) -> io::Result<Self> {
        let devices = devices(netlink)?;
        let addresses = netlink
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?
            .messages
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) => DeviceAddress::from_message(message),
                _ => None,
            })
            .collect();
        let routes = netlink
            .dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))?
            .messages
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(message) => DefaultRoute::from_message(message),
                _ => None,
            })
            .collect();
        Ok(Self {
            devices: devices
                .into_iter()
                .map(|device| (device.index, device))
                .collect(),
            addresses,
            routes,
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
                    match self
                        .addresses
                        .iter_mut()
                        .find(|known| known.is_at(&address))
                    {
                        Some(known) => *known = address,
                        None => self.addresses.push(address),
                    }
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some(gone) = DeviceAddress::from_message(&message) {
                    self.addresses.retain(|known| !known.is_at(&gone));
                }
            }
            RouteNetlinkMessage::NewRoute(message) => {
                self.routes.extend(DefaultRoute::from_message(&message));
            }
            RouteNetlinkMessage::DelRoute(message) => {
                if let Some(gone) = DefaultRoute::from_message(&message)
                    && let Some(position) = self.routes.iter().position(|route| *route == gone)
                {
                    self.routes.remove(position);
                }
            }
            RouteNetlinkMessage::NewTrafficFilter(message)
            | RouteNetlinkMessage::DelTrafficFilter(message)
            | RouteNetlinkMessage::DelQueueDiscipline(message) => {
                touched.changed.insert(message.header.index.cast_unsigned());
            }
            _ => {}
        }
    }

    /// The addresses that the node answers to.
    pub(crate) fn local_addresses(&self) -> BTreeSet<IpAddr> {
        let local = self.addresses.iter().filter(|address| address.local);
        local.map(|address| address.address).collect()
    }

    /// Forgets a device and all that hung on it.
    pub(crate) fn forget(&mut self, index: u32) {
        self.devices.remove(&index);
        self.addresses.retain(|address| address.index != index);
        self.routes.retain(|route| route.index != index);
    }

    fn is_news(&self, device: &Device) -> bool {
        self.devices.get(&device.index) != Some(device)
    }
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
