//! A network device as netlink tells of it, and what it means to us.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink says more than anybody asked for, and more with every kernel"
)]
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{
        InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    },
};
use serde::{Deserialize, Serialize};

use crate::datapath::devices::{node_device, pattern::Patterns};

/// Where packets start on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// At an Ethernet header.
    Ethernet,
    /// At the IP header: wireguard, ipip, sit, gre, tun without Ethernet.
    Ip,
}

/// A device of the node's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind netlink says it is (`veth`, `bridge`, `wireguard`); empty for hardware.
    pub kind: String,
    /// Where packets start, `None` for what carries no IP that we know how to find.
    pub layer: Option<Layer>,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// Index of the device it is enslaved to; zero if none.
    pub master: u32,
    /// Index of the device that its packets pass as well, of a VLAN and the like; zero if none.
    pub lower: u32,
    /// Whether it is a port of a bridge.
    pub bridge_port: bool,
    /// Its Ethernet address; zero if it has none.
    pub ethernet_address: [u8; 6],
    /// How many bytes a packet may have, of the IP header and what follows.
    pub mtu: u32,
    /// Whether it is set up.
    pub is_up: bool,
}

impl Device {
    /// Reads a link message; `None` for messages that do not describe a device (bridge port notices have another
    /// family) or have no name.
    pub fn from_message(message: &LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let mut device = Self {
            index: message.header.index,
            name: String::new(),
            kind: String::new(),
            layer: layer(message.header.link_layer_type),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            master: 0,
            lower: 0,
            bridge_port: false,
            ethernet_address: [0; 6],
            mtu: 0,
            is_up: message.header.flags.contains(LinkFlags::Up),
        };
        let mut link = 0;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
                LinkAttribute::Controller(index) => device.master = *index,
                LinkAttribute::Link(index) => link = *index,
                LinkAttribute::Address(bytes) => {
                    device.ethernet_address = bytes.as_slice().try_into().unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::LinkInfo(details) => device.read_details(details),
                _ => {}
            }
        }
        // Of tunnels and veth, `link` is another thing.
        let is_stacked = matches!(
            InfoKind::from(device.kind.as_str()),
            InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan
        );
        device.lower = if is_stacked { link } else { 0 };
        (!device.name.is_empty()).then_some(device)
    }

    fn read_details(&mut self, details: &[LinkInfo]) {
        for detail in details {
            match detail {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::PortKind(kind) => self.bridge_port = *kind == InfoPortKind::Bridge,
                _ => {}
            }
        }
    }

    /// Whether it looks like the node's side of a pod's interface.
    pub fn is_pod_side(&self) -> bool {
        matches!(
            InfoKind::from(self.kind.as_str()),
            InfoKind::Veth | InfoKind::Netkit
        )
    }
}

/// What the address families other than Ethernet look like at TC. ARPHRD numbers are those of `linux/if_arp.h`.
fn layer(kind: LinkLayerType) -> Option<Layer> {
    match kind {
        LinkLayerType::Ether => Some(Layer::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre
        | LinkLayerType::Ppp => Some(Layer::Ip),
        _ => None,
    }
}

/// Which devices are attached to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of the node's own devices: uplinks, tunnels, bridges. `None`: all.
    pub devices: Option<Patterns>,
    /// Of the node's sides of pods' interfaces: veth, netkit. `None`: all.
    pub pod_interfaces: Option<Patterns>,
}

impl Filter {
    /// `None` if the device is to be attached to, else why not.
    pub fn reason_against(&self, device: &Device) -> Option<&'static str> {
        if device.loopback {
            return Some("loopback: the socket hooks serve the node's own processes");
        }
        if device.name == node_device::OUTER {
            return Some("leads to waggle1, which is attached to");
        }
        if device.name == node_device::INNER {
            return None;
        }
        if device.layer.is_none() {
            return Some("neither Ethernet nor plain IP");
        }
        let named = |patterns: &Option<Patterns>| {
            patterns
                .as_ref()
                .is_some_and(|patterns| patterns.matches(&device.name))
        };
        let (own, flag) = if device.is_pod_side() {
            (&self.pod_interfaces, "left out by --pod-interfaces")
        } else {
            (&self.devices, "left out by --devices")
        };
        let chosen = own.is_none() || named(&self.devices) || named(&self.pod_interfaces);
        (!chosen).then_some(flag)
    }
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceAddress {
    /// Interface index.
    pub index: u32,
    /// The device's own end.
    pub address: IpAddr,
    /// The network that it is in; on a point-to-point device the other end's.
    pub network: IpNet,
    /// Fit to masquerade with: global, primary, not on its way out or in.
    pub usable: bool,
    /// The node answers to it wherever it is dialled from: checked by the kernel, and not of one link only.
    pub local: bool,
}

impl DeviceAddress {
    /// Whether anything depends on it: not so for an address of one link only.
    pub(crate) const fn matters(&self) -> bool {
        self.usable || self.local
    }

    /// Whether both are the same address of the same device.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (self.index, self.address) == (other.index, other.address)
    }

    /// Reads an address message.
    pub fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut address, mut local, mut flags) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(found) => address = Some(*found),
                AddressAttribute::Local(found) => local = Some(*found),
                AddressAttribute::Flags(found) => flags = Some(*found),
                _ => {}
            }
        }
        let flags = flags.unwrap_or(AddressFlags::from_bits_retain(
            message.header.flags.bits().into(),
        ));
        // The same bit means "secondary" for IPv4 and "temporary" for IPv6: neither stays.
        let unfit = AddressFlags::Secondary
            | AddressFlags::Deprecated
            | AddressFlags::Tentative
            | AddressFlags::Dadfailed;
        let usable = message.header.scope == AddressScope::Universe && !flags.intersects(unfit);
        let unchecked = AddressFlags::Tentative | AddressFlags::Dadfailed;
        // On a point-to-point device `Address` is the other end.
        let (network, address) = (address.or(local)?, local.or(address)?);
        let network = IpNet::new(network, message.header.prefix_len).ok()?;
        let of_link = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        Some(Self {
            index: message.header.index,
            address,
            network: network.trunc(),
            usable,
            local: !flags.intersects(unchecked) && !of_link,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, kind: &str) -> Device {
        Device {
            index: 7,
            name: name.to_owned(),
            kind: kind.to_owned(),
            layer: Some(Layer::Ethernet),
            loopback: false,
            master: 0,
            lower: 0,
            bridge_port: false,
            ethernet_address: [0; 6],
            mtu: 1500,
            is_up: true,
        }
    }

    #[test]
    fn without_filters_everything_but_loopback_is_attached_to() {
        let filter = Filter::default();
        for kind in ["", "veth", "bridge", "vxlan", "wireguard"] {
            assert_eq!(filter.reason_against(&device("x0", kind)), None, "{kind}");
        }
        let loopback = Device {
            loopback: true,
            ..device("lo", "")
        };
        assert!(filter.reason_against(&loopback).is_some());
        let infiniband = Device {
            layer: None,
            ..device("ib0", "")
        };
        assert!(filter.reason_against(&infiniband).is_some());
    }

    #[test]
    fn each_filter_speaks_of_its_own_devices_and_may_name_any() {
        let filter = Filter {
            devices: Some("eth*,vethuplink".parse().unwrap()),
            pod_interfaces: None,
        };
        assert!(filter.reason_against(&device("cali1", "veth")).is_none());
        assert!(filter.reason_against(&device("eth0", "")).is_none());
        assert!(
            filter
                .reason_against(&device("docker0", "bridge"))
                .is_some()
        );
        let filter = Filter {
            devices: Some("eth*,vethuplink".parse().unwrap()),
            pod_interfaces: Some("cali*".parse().unwrap()),
        };
        assert!(
            filter
                .reason_against(&device("vethuplink", "veth"))
                .is_none()
        );
        assert!(filter.reason_against(&device("veth1", "veth")).is_some());
    }
}
