//! The devices and routes of the machine that an agent serves: which device a packet enters and leaves by.
use std::{cell::RefCell, collections::BTreeMap, io, net::IpAddr, path::Path};

use lb_common::{DeviceEntry, DeviceFlags};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use nix::net::if_::if_nametoindex;

use crate::{bpf::io_error, maps::bpf::DeviceTable, netlink::Netlink};

/// What the pinned map DEVICES says, and the kernel's routes, which are asked for as questions come.
#[derive(Debug)]
pub(super) struct Live {
    devices: BTreeMap<u32, DeviceEntry>,
    routes: RefCell<Netlink<RouteNetlinkMessage>>,
}

/// Where the kernel sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the node itself.
    Here,
    /// Out by this device.
    By(u32),
}

impl Live {
    /// Of the network namespace that asks, and the maps in this folder.
    pub(super) fn open(maps: &Path) -> io::Result<Self> {
        Ok(Self {
            devices: DeviceTable::open(maps).map_err(io_error)?.read(),
            routes: RefCell::new(Netlink::route()?),
        })
    }

    /// What is known of the device with this name.
    pub(super) fn device(&self, name: &str) -> Option<DeviceEntry> {
        let index = if_nametoindex(name).ok()?;
        self.devices.get(&index).copied()
    }

    /// Whether pods are told from others by their devices.
    pub(super) fn has_devices_of_pods(&self) -> bool {
        let mut devices = self.devices.values();
        devices.any(|it| it.flags.has(DeviceFlags::PODS) && !it.flags.has(DeviceFlags::NODE))
    }

    /// What is known of the device with this index.
    pub(super) fn device_at(&self, index: u32) -> Option<DeviceEntry> {
        self.devices.get(&index).copied()
    }

    /// Where a packet to this address goes, if anywhere.
    pub(super) fn way(&self, destination: IpAddr) -> Option<Way> {
        let mut question = RouteMessage::default();
        let (family, length, address) = match destination {
            IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
        };
        question.header.address_family = family;
        question.header.destination_prefix_length = length;
        question
            .attributes
            .push(RouteAttribute::Destination(address));
        let question = RouteNetlinkMessage::GetRoute(question);
        let answers = self.routes.borrow_mut().ask(question).ok()?;
        answers.iter().find_map(|answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                way(route)
            } else {
                None
            }
        })
    }
}

fn way(route: &RouteMessage) -> Option<Way> {
    if route.header.kind == RouteType::Local {
        return Some(Way::Here);
    }
    route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Oif(index) = attribute {
            Some(Way::By(*index))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_here() {
        let live = Live {
            devices: BTreeMap::new(),
            routes: RefCell::new(Netlink::route().unwrap()),
        };
        assert_eq!(live.way([127, 0, 0, 1].into()), Some(Way::Here));
    }
}
