//! Where pods and Services have their addresses: what is decided by a prefix rather than by an entry of its own.
use bytemuck::{Pod, Zeroable};

use crate::family::{IpFamily, V4, V6};

/// How many prefixes of a family `ClusterIPs` may be allocated from.
pub const SERVICE_PREFIXES: usize = 4;

/// Addresses that begin alike, in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix<F: IpFamily> {
    /// The address, with nothing but zeros where the mask has them.
    pub network: F::Address,
    /// Ones where addresses must agree.
    pub mask: F::Address,
}

impl<F: IpFamily> Prefix<F> {
    /// Whether an address is within. No ones at all in the mask: none is.
    #[inline(always)]
    pub fn contains(&self, address: &F::Address) -> bool {
        let mut ones = 0;
        for mask in self.mask.as_ref() {
            ones |= mask;
        }
        self.agrees(address) && ones != 0
    }

    /// Whether an address is within. No ones at all in the mask: all are, or none if the network is not zero.
    #[inline(always)]
    pub fn agrees(&self, address: &F::Address) -> bool {
        let (address, network, mask) =
            (address.as_ref(), self.network.as_ref(), self.mask.as_ref());
        let mut differing = 0;
        for ((address, network), mask) in address.iter().zip(network).zip(mask) {
            differing |= (address & mask) ^ network;
        }
        differing == 0
    }
}

/// A family's part of [`Networks`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyNetworks<F: IpFamily> {
    /// What tells pods of the cluster from other senders by their address. Devices that only pods send by say so
    /// themselves: [`crate::device::DeviceFlags::PODS`].
    pub pods: Prefix<F>,
    /// Holds every `ClusterIP` and all of `service_prefixes`: what does not agree with it ([`Prefix::agrees`]) need not be
    /// looked up to know that it is neither.
    pub around_services: Prefix<F>,
    /// Where `ClusterIPs` are allocated.
    pub service_prefixes: [Prefix<F>; SERVICE_PREFIXES],
}

/// Value of NETWORKS, an array of one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Networks {
    /// Of IPv6.
    pub v6: FamilyNetworks<V6>,
    /// Of IPv4.
    pub v4: FamilyNetworks<V4>,
}
const _: () = assert!(size_of::<Networks>() == 240);

impl Default for Networks {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// A family that has a part of [`Networks`].
pub trait NetworkFamily: IpFamily {
    /// Its part.
    fn of_networks(networks: &Networks) -> &FamilyNetworks<Self>;
}
impl NetworkFamily for V4 {
    #[inline(always)]
    fn of_networks(networks: &Networks) -> &FamilyNetworks<Self> {
        &networks.v4
    }
}
impl NetworkFamily for V6 {
    #[inline(always)]
    fn of_networks(networks: &Networks) -> &FamilyNetworks<Self> {
        &networks.v6
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::family::{Ipv4Address, Ipv6Address};

    #[test]
    fn a_prefix_contains_what_begins_like_it_and_one_without_length_nobody() {
        let v4 = |text: &str| Ipv4Address::from(text.parse::<Ipv4Addr>().unwrap());
        let v6 = |text: &str| Ipv6Address::from(text.parse::<Ipv6Addr>().unwrap());
        let pods = Prefix::<V4> {
            network: v4("10.244.0.0"),
            mask: v4("255.255.0.0"),
        };
        assert!(pods.contains(&v4("10.244.255.1")));
        assert!(!pods.contains(&v4("10.245.0.0")));
        assert!(!Networks::default().v4.pods.contains(&v4("0.0.0.0")));
        let pods = Prefix::<V6> {
            network: v6("fd00:10:244::"),
            mask: v6("ffff:ffff:ffff:8000::"),
        };
        assert!(pods.contains(&v6("fd00:10:244:7fff::2")));
        assert!(!pods.contains(&v6("fd00:10:244:8000::2")));
        assert!(!Networks::default().v6.pods.contains(&v6("::")));
    }
}
