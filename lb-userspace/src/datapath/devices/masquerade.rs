//! What DEVICES says: with which address packets leave by a device, behind which bridge it is, and whether it is pods'.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::{DEVICE_NETWORKS, DeviceEntry, DeviceFlags, DeviceNetwork, Prefix, V4, V6};

use crate::datapath::devices::{
    device::{Device, DeviceAddress, Filter, Layer},
    node_device,
};
use crate::maps::MapFamily;
use crate::model::DetectLocal;

/// The content of DEVICES for these devices and addresses, on a node that has routing rules of its own or not; a pure
/// function.
///
/// For each family the masquerade address is the one that the kernel's MASQUERADE takes (`inet_select_addr`): the device's
/// own in the next hop's network, else its own first one, else that of the device it is enslaved to (a bridge, a VRF), else
/// the first of any device, where the loopback device comes first.
pub(crate) fn entries(
    devices: &BTreeMap<u32, Device>,
    addresses: &[DeviceAddress],
    has_rules: bool,
    detect_local: &DetectLocal,
    filter: &Filter,
) -> BTreeMap<u32, DeviceEntry> {
    let attached = devices
        .values()
        .filter(|it| filter.reason_against(it).is_none());
    let attached: BTreeSet<u32> = attached.map(|it| it.index).collect();
    let lowers = devices.values().filter(|it| attached.contains(&it.index));
    let (masters, below): (BTreeSet<u32>, BTreeSet<u32>) =
        lowers.map(|it| (it.master, it.lower)).unzip();
    let mut first = BTreeMap::new();
    for address in addresses.iter().filter(|address| address.usable) {
        first
            .entry((address.index, address.address.is_ipv4()))
            .or_insert(address.address);
    }
    let of_device = |index: u32, is_v4: bool| first.get(&(index, is_v4)).copied();
    let [node_v4, node_v6] = [true, false].map(|is_v4| {
        let usable = addresses.iter().filter(|address| address.usable);
        let of_family = usable.filter(|address| address.address.is_ipv4() == is_v4);
        let first = of_family.min_by_key(|address| address.index);
        first.map(|address| address.address)
    });
    let node_device = devices.values().find(|it| it.name == node_device::INNER);
    let node_device = node_device.map_or(0, |it| it.index);
    let address = |device: &Device, is_v4: bool, node: Option<IpAddr>| {
        let [of_v4, of_v6] = node_device::CLIENT_ADDRESSES;
        let of_node = (device.index == node_device).then_some(if is_v4 { of_v4 } else { of_v6 });
        of_node
            .or_else(|| of_device(device.index, is_v4))
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
                bridge_address: devices
                    .get(&device.master)
                    .filter(|_| device.bridge_port)
                    .map_or([0; 6], |bridge| bridge.ethernet_address),
                flags: [
                    (is_of_pods(device, devices, detect_local), DeviceFlags::PODS),
                    (
                        device.index == node_device,
                        DeviceFlags::NODE.with(DeviceFlags::PODS),
                    ),
                    (device.name == node_device::OUTER, DeviceFlags::NODE_OUTER),
                    (
                        masters.contains(&device.index) || attached.contains(&device.lower),
                        DeviceFlags::UPPER,
                    ),
                    (
                        has_rules && device.layer == Some(Layer::Ethernet),
                        DeviceFlags::POLICY_ROUTED,
                    ),
                    (
                        attached.contains(&device.master) || below.contains(&device.index),
                        DeviceFlags::LOWER,
                    ),
                ]
                .into_iter()
                .filter(|(is_set, _)| *is_set)
                .fold(DeviceFlags::NONE, |flags, (_, flag)| flags.with(flag)),
                spare: 0,
                node_device,
                networks_v6: networks::<V6>(device.index, addresses),
                networks_v4: networks::<V4>(device.index, addresses),
            };
            (device.index, entry)
        })
        .collect()
}

/// The networks of a family that a device is in, in the kernel's order, if there are several.
fn networks<F: MapFamily>(
    index: u32,
    addresses: &[DeviceAddress],
) -> [DeviceNetwork<F>; DEVICE_NETWORKS] {
    let of_device = addresses.iter().filter(|it| it.usable && it.index == index);
    let all: Vec<DeviceNetwork<F>> = of_device
        .filter_map(|it| {
            let network = Prefix {
                network: F::address(it.network.network())?,
                mask: F::address(it.network.netmask())?,
            };
            let address = F::address(it.address)?;
            Some(DeviceNetwork { network, address })
        })
        .collect();
    let mut networks = [DeviceNetwork::default(); DEVICE_NETWORKS];
    if all.len() > 1 {
        for (place, network) in networks.iter_mut().zip(all) {
            *place = network;
        }
    }
    networks
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
    use ipnet::IpNet;

    use super::*;

    fn device(index: u32, kind: &str, master: u32) -> (u32, Device) {
        let device = Device {
            index,
            name: format!("d{index}"),
            kind: kind.to_owned(),
            layer: Some(Layer::Ethernet),
            loopback: false,
            master,
            bridge_port: master != 0,
            lower: 0,
            ethernet_address: [0; 6],
            mtu: 1500,
            is_up: true,
        };
        (index, device)
    }
    fn address(index: u32, text: &str) -> DeviceAddress {
        DeviceAddress {
            index,
            address: text.parse().unwrap(),
            network: format!("{text}/24").parse::<IpNet>().unwrap().trunc(),
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
        let entries = entries(
            &devices,
            &addresses,
            false,
            &DetectLocal::None,
            &Filter::default(),
        );
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
        let entries = entries(
            &devices,
            &addresses,
            false,
            &DetectLocal::None,
            &Filter::default(),
        );
        assert_eq!(entries.get(&2), Some(&DeviceEntry::default()));
    }

    #[test]
    fn devices_over_attached_ones_are_upper_ones() {
        let mut devices = BTreeMap::from([
            device(2, "veth", 3),
            device(3, "bridge", 0),
            device(4, "", 0),
            device(5, "vlan", 0),
            device(6, "vxlan", 0),
        ]);
        devices.get_mut(&5).unwrap().lower = 4;
        let with = |flag: DeviceFlags, filter: &Filter| -> Vec<u32> {
            let entries = entries(&devices, &[], false, &DetectLocal::None, filter);
            let with = entries.into_iter().filter(|(_, it)| it.flags.has(flag));
            with.map(|(index, _)| index).collect()
        };
        assert_eq!(with(DeviceFlags::UPPER, &Filter::default()), [3, 5]);
        assert_eq!(with(DeviceFlags::LOWER, &Filter::default()), [2, 4]);
        // What is below has no programs: nothing has passed them before.
        let filter = Filter {
            devices: Some("d3,d5".parse().unwrap()),
            pod_interfaces: Some("none".parse().unwrap()),
        };
        assert_eq!(with(DeviceFlags::UPPER, &filter), [0; 0]);
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
            let entries = entries(&devices, &[], false, mode, &Filter::default()).into_iter();
            let of_pods = entries.filter(|(_, entry)| entry.flags.has(DeviceFlags::PODS));
            of_pods.map(|(index, _)| index).collect()
        };
        assert_eq!(of_pods(&DetectLocal::Bridge("d3".to_owned())), [3, 4]);
        assert_eq!(of_pods(&DetectLocal::InterfacePrefix("d5".to_owned())), [5]);
        assert_eq!(of_pods(&DetectLocal::ClusterCidr), [0; 0]);
    }
}
