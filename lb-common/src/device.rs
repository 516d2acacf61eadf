//! What the datapath must know of a network device.
use bytemuck::{Pod, Zeroable};

use crate::family::{Ipv4Address, Ipv6Address};

/// Value of DEVICES, a hash keyed by interface index (u32, host order).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DeviceEntry {
    /// Source of masqueraded IPv6 packets that leave here; zero where the node has none.
    pub masquerade_v6: Ipv6Address,
    /// Source of masqueraded IPv4 packets that leave here; zero where the node has none.
    pub masquerade_v4: Ipv4Address,
    /// Index of the bridge this device is a port of; zero where it is none.
    pub bridge: u32,
    /// What else is known of it.
    pub flags: DeviceFlags,
    /// Zero.
    pub spare: u32,
}
const _: () = assert!(size_of::<DeviceEntry>() == 32);

/// Bits of [`DeviceEntry::flags`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DeviceFlags(pub u32);

impl DeviceFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// What enters here comes from pods of this node.
    pub const PODS: Self = Self(1);

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
