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
}
const _: () = assert!(size_of::<DeviceEntry>() == 24);
