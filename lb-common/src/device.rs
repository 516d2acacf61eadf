//! What the datapath must know of a network device.
use bytemuck::{Pod, Zeroable};

use crate::{
    family::{IpFamily, Ipv4Address, Ipv6Address, V4, V6},
    networks::Prefix,
};

/// Value of DEVICES, a hash keyed by interface index (u32, host order).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DeviceEntry {
    /// Source of masqueraded IPv6 packets that leave here, if none of `networks_v6` has the next hop; zero where the node has
    /// none.
    pub masquerade_v6: Ipv6Address,
    /// Source of masqueraded IPv4 packets that leave here; zero where the node has none.
    pub masquerade_v4: Ipv4Address,
    /// Index of the bridge this device is a port of; zero where it is none.
    pub bridge: u32,
    /// What else is known of it.
    pub flags: DeviceFlags,
    /// Ethernet address of that bridge; zero where it is none.
    pub bridge_address: [u8; 6],
    /// Zero.
    pub spare: u16,
    /// Index of the device through which processes of the node are served ([`DeviceFlags::NODE`]); zero where there is none.
    pub node_device: u32,
    /// The IPv6 networks that the device is in, if there are several; the others are zero.
    pub networks_v6: [DeviceNetwork<V6>; DEVICE_NETWORKS],
    /// The IPv4 networks that the device is in, if there are several; the others are zero.
    pub networks_v4: [DeviceNetwork<V4>; DEVICE_NETWORKS],
}
const _: () = assert!(size_of::<DeviceEntry>() == 280);

/// The Ethernet address of both ends of the node's device pair (locally administered): neither asks for the other's.
pub const NODE_DEVICE_ADDRESS: [u8; 6] = *b"\x02waggl";

/// How many networks of a family count for one device.
pub const DEVICE_NETWORKS: usize = 4;

/// A network that a device is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNetwork<F: IpFamily> {
    /// Where the next hop must be.
    pub network: Prefix<F>,
    /// The device's own address there: the source of masqueraded packets.
    pub address: F::Address,
}

impl<F: IpFamily> Default for DeviceNetwork<F> {
    fn default() -> Self {
        Self {
            network: Prefix {
                network: F::UNSPECIFIED,
                mask: F::UNSPECIFIED,
            },
            address: F::UNSPECIFIED,
        }
    }
}

/// Bits of [`DeviceEntry::flags`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DeviceFlags(pub u32);

impl DeviceFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// What enters here comes from pods of this node.
    pub const PODS: Self = Self(1);
    /// The device lies over others that are attached as well (a bridge, a bond, a VLAN device). Packets that enter here have
    /// passed one of them; packets that leave here will.
    pub const UPPER: Self = Self(1 << 1);
    /// Ethernet, on a node with routing rules of its own (`ip rule`): with its frontend's address as the source, a reply may have
    /// to leave by another device than the one that its backend's address was routed to.
    pub const POLICY_ROUTED: Self = Self(1 << 3);
    /// The inner end of the device pair through which processes of the node are served: what enters here they have sent to
    /// Services, and what leaves here goes to them.
    pub const NODE: Self = Self(1 << 4);
    /// The outer end of that pair. No program sends packets here: they would come back by the inner end.
    pub const NODE_OUTER: Self = Self(1 << 5);
    /// Packets that leave here may have passed an [`Self::UPPER`] device that lies over this one.
    pub const LOWER: Self = Self(1 << 2);

    /// These flags and others.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
