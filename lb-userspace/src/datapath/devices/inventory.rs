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

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkFlags, LinkMessage},
    route::RouteMessage,
};

use crate::datapath::devices::{
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
    /// How many routes of any kind there were when all were read.
    all_routes: usize,
}

/// With more routes than this (a node with BGP has tens of thousands) they are read once, and followed from then on.
const FEW_ROUTES: usize = 1000;

/// Which devices a message is about.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// These are new, have changed, or somebody has changed what hangs on them.
    pub(crate) changed: BTreeSet<u32>,
    /// These have left the network namespace.
    pub(crate) gone: BTreeSet<u32>,
    /// An address or default route is another.
    pub(crate) is_readdressed: bool,
}

impl Touched {
    /// Whether there is nothing to do.
    pub(crate) fn is_nothing(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty() && !self.is_readdressed
    }
}

impl Inventory {
    /// Asks for everything again; for routes only if there are few. What of them is lost without a message, those of a
    /// device that is set down are, [`Inventory::take`] knows.
    pub(crate) fn read_again(&mut self, netlink: &mut Route) -> io::Result<()> {
        if self.all_routes <= FEW_ROUTES {
            *self = Self::read(netlink)?;
            return Ok(());
        }
        let (devices, addresses) = (devices_by_index(netlink)?, addresses(netlink)?);
        (self.devices, self.addresses) = (devices, addresses);
        self.routes
            .retain(|route| self.devices.contains_key(&route.index));
        Ok(())
    }

    /// Asks for everything.
    pub(crate) fn read(netlink: &mut Route) -> io::Result<Self> {
        let routes = netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
        let defaults = routes.messages.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => DefaultRoute::from_message(message),
            _ => None,
        });
        Ok(Self {
            devices: devices_by_index(netlink)?,
            addresses: addresses(netlink)?,
            routes: defaults.collect(),
            all_routes: routes.messages.len(),
        })
    }

    /// Takes notice of a message with these flags.
    pub(crate) fn take(&mut self, flags: u16, message: RouteNetlinkMessage, touched: &mut Touched) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                // The kernel tells nobody of the IPv4 routes that it removes with a device that is set down.
                if !message.header.flags.contains(LinkFlags::Up) {
                    let index = message.header.index;
                    self.change_routes(touched, |routes| {
                        routes.retain(|route| !route.is_v4 || route.index != index);
                    });
                }
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
                    touched.is_readdressed = true;
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
                    touched.is_readdressed = true;
                    self.addresses.retain(|known| !known.is_at(&gone));
                }
            }
            RouteNetlinkMessage::NewRoute(message) => {
                if let Some(new) = DefaultRoute::from_message(&message) {
                    self.change_routes(touched, |routes| insert(routes, new, flags));
                }
            }
            RouteNetlinkMessage::DelRoute(message) => {
                if let Some(gone) = DefaultRoute::from_message(&message) {
                    self.change_routes(touched, |routes| {
                        if let Some(position) = routes.iter().position(|route| *route == gone) {
                            routes.remove(position);
                        }
                    });
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

    /// Changes the default routes, and notes whether they are others now.
    fn change_routes(
        &mut self,
        touched: &mut Touched,
        change: impl FnOnce(&mut Vec<DefaultRoute>),
    ) {
        let before = self.routes.clone();
        change(&mut self.routes);
        touched.is_readdressed |= self.routes != before;
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

/// A new default route: in the place of the first of its metric if it replaces that, otherwise behind all others.
fn insert(routes: &mut Vec<DefaultRoute>, new: DefaultRoute, flags: u16) {
    let mut known = routes.iter_mut();
    let same = |route: &&mut DefaultRoute| route.metric == new.metric && route.is_v4 == new.is_v4;
    match known.find(same).filter(|_| flags & NLM_F_REPLACE != 0) {
        Some(replaced) => *replaced = new,
        None => routes.push(new),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_replaces_another_takes_its_place() {
        let route = |metric, index| DefaultRoute {
            metric,
            is_v4: true,
            index,
        };
        let mut routes = vec![route(0, 1), route(100, 2)];
        insert(&mut routes, route(0, 3), NLM_F_REPLACE);
        assert_eq!(routes, [route(0, 3), route(100, 2)]);
        insert(&mut routes, route(0, 4), 0);
        insert(&mut routes, route(50, 5), NLM_F_REPLACE);
        assert_eq!(
            routes,
            [route(0, 3), route(100, 2), route(0, 4), route(50, 5)]
        );
    }
}
