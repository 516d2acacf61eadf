//! What DEVICES says: with which address packets leave by a device, behind which bridge it is, and whether it is pods'.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::{DeviceEntry, DeviceFlags};

use crate::datapath::devices::device::{DefaultRoute, Device, DeviceAddress};
use crate::model::DetectLocal;

/// The content of DEVICES for these devices, addresses and routes; a pure function.
///
/// For each family the masquerade address is the device's own first usable one, else that of the device it is enslaved
/// to (a bridge), else the node's: that of the default route's device, else the first that any device has.
pub(crate) fn entries(
    devices: &BTreeMap<u32, Device>,
    addresses: &[DeviceAddress],
    routes: &[DefaultRoute],
    detect_local: &DetectLocal,
) -> BTreeMap<u32, DeviceEntry> {
    let mut first = BTreeMap::new();
    for address in addresses.iter().filter(|address| address.usable) {
        first
            .entry((address.index, address.address.is_ipv4()))
            .or_insert(address.address);
    }
    let of_device = |index: u32, is_v4: bool| first.get(&(index, is_v4)).copied();
    let [node_v4, node_v6] = [true, false].map(|is_v4| {
        routes
            .iter()
            .filter(|route| route.is_v4 == is_v4)
            .min()
            .and_then(|route| of_device(route.index, is_v4))
            .or_else(|| {
                let any =
                    |address: &&DeviceAddress| address.usable && address.address.is_ipv4() == is_v4;
                addresses.iter().find(any).map(|address| address.address)
            })
    });
    let address = |device: &Device, is_v4: bool, node: Option<IpAddr>| {
        of_device(device.index, is_v4)
            .or_else(|| of_device(device.master, is_v4))
            .or(node)
    };
    devices
        .values()
        .map(|device| {
            let v4 = match address(device, true, node_v4) {
                Some(IpAddr::V4(address)) => address,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let v6 = match address(device, false, node_v6) {
                Some(IpAddr::V6(address)) => address,
                _ => Ipv6Addr::UNSPECIFIED,
            };
            let entry = DeviceEntry {
                masquerade_v4: v4.into(),
                masquerade_v6: v6.into(),
                bridge: if device.bridge_port { device.master } else { 0 },
                flags: if is_of_pods(device, devices, detect_local) {
                    DeviceFlags::PODS
                } else {
                    DeviceFlags::NONE
                },
                spare: 0,
            };
            (device.index, entry)
        })
        .collect()
}

/// Whether what enters by a device comes from pods. Packets that come in by a bridge are seen at its ports already.
fn is_of_pods(
    device: &Device,
    devices: &BTreeMap<u32, Device>,
    detect_local: &DetectLocal,
) -> bool {
    match detect_local {
        DetectLocal::Bridge(name) => {
            let bridge = devices.get(&device.master);
            let is_port = device.bridge_port && bridge.is_some_and(|bridge| bridge.name == *name);
            is_port || device.name == *name
        }
        DetectLocal::InterfacePrefix(prefix) => device.name.starts_with(prefix.as_str()),
        DetectLocal::ClusterCidr | DetectLocal::NodeCidr | DetectLocal::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::devices::device::Layer;

    fn device(index: u32, kind: &str, master: u32) -> (u32, Device) {
        let device = Device {
            index,
            name: format!("d{index}"),
            kind: kind.to_owned(),
            layer: Some(Layer::Ethernet),
            loopback: false,
            master,
            bridge_port: master != 0,
        };
        (index, device)
    }
    fn address(index: u32, text: &str) -> DeviceAddress {
        DeviceAddress {
            index,
            address: text.parse().unwrap(),
            usable: true,
            local: true,
        }
    }
    fn v4(text: &str) -> lb_common::Ipv4Address {
        text.parse::<Ipv4Addr>().unwrap().into()
    }

    #[test]
    fn own_address_then_the_bridges_then_the_nodes() {
        let devices = BTreeMap::from([
            device(2, "", 0),
            device(3, "bridge", 0),
            device(4, "veth", 3),
            device(5, "veth", 0),
        ]);
        let addresses = [
            address(3, "10.244.1.1"),
            address(2, "192.0.2.2"),
            address(2, "2001:db8::2"),
        ];
        let routes = [
            DefaultRoute {
                metric: 200,
                is_v4: true,
                index: 3,
            },
            DefaultRoute {
                metric: 100,
                is_v4: true,
                index: 2,
            },
        ];
        let entries = entries(&devices, &addresses, &routes, &DetectLocal::None);
        let found = |index| entries.get(&index).copied().unwrap();
        assert_eq!(found(2).masquerade_v4, v4("192.0.2.2"));
        assert_eq!(found(3).masquerade_v4, v4("10.244.1.1"));
        assert_eq!(found(4).masquerade_v4, v4("10.244.1.1"));
        assert_eq!(found(5).masquerade_v4, v4("192.0.2.2"));
        assert_eq!(
            (found(4).bridge, found(5).bridge, found(3).bridge),
            (3, 0, 0)
        );
        let v6 = "2001:db8::2".parse::<Ipv6Addr>().unwrap();
        assert!(
            entries
                .values()
                .all(|entry| entry.masquerade_v6 == v6.into())
        );
    }

    #[test]
    fn unusable_addresses_are_not_taken() {
        let devices = BTreeMap::from([device(2, "", 0)]);
        let addresses = [DeviceAddress {
            usable: false,
            ..address(2, "169.254.1.1")
        }];
        let entries = entries(&devices, &addresses, &[], &DetectLocal::None);
        assert_eq!(entries.get(&2), Some(&DeviceEntry::default()));
    }

    #[test]
    fn devices_of_pods_are_told_by_their_bridge_or_their_name() {
        let devices = BTreeMap::from([
            device(2, "", 0),
            device(3, "bridge", 0),
            device(4, "veth", 3),
            device(5, "veth", 0),
        ]);
        let of_pods = |mode: &DetectLocal| -> Vec<u32> {
            let entries = entries(&devices, &[], &[], mode).into_iter();
            let of_pods = entries.filter(|(_, entry)| entry.flags.has(DeviceFlags::PODS));
            of_pods.map(|(index, _)| index).collect()
        };
        assert_eq!(of_pods(&DetectLocal::Bridge("d3".to_owned())), [3, 4]);
        assert_eq!(of_pods(&DetectLocal::InterfacePrefix("d5".to_owned())), [5]);
        assert_eq!(of_pods(&DetectLocal::ClusterCidr), [0; 0]);
    }
}
