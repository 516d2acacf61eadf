//! Which senders are pods of the cluster: they are treated differently from the world outside.
use bytemuck::{Pod, Zeroable};

use crate::family::{IpFamily, V4, V6};

/// Addresses that begin alike, in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix<F: IpFamily> {
    /// The address, with nothing but zeros where the mask has them.
    pub network: F::Address,
    /// Ones where addresses must agree. No ones at all: the prefix of nobody.
    pub mask: F::Address,
}

impl<F: IpFamily> Prefix<F> {
    /// Whether an address is within.
    #[inline(always)]
    pub fn contains(&self, address: &F::Address) -> bool {
        let (address, network, mask) =
            (address.as_ref(), self.network.as_ref(), self.mask.as_ref());
        let mut differing = 0;
        let mut ones = 0;
        for ((address, network), mask) in address.iter().zip(network).zip(mask) {
            differing |= (address & mask) ^ network;
            ones |= mask;
        }
        differing == 0 && ones != 0
    }
}

/// Value of SENDERS, an array of one: what tells pods of the cluster from other senders by their address. Devices that
/// only pods send by say so themselves: [`crate::device::DeviceFlags::PODS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Senders {
    /// Pods' IPv6 addresses.
    pub pods_v6: Prefix<V6>,
    /// Pods' IPv4 addresses.
    pub pods_v4: Prefix<V4>,
}
const _: () = assert!(size_of::<Senders>() == 40);

impl Default for Senders {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// A family's part of [`Senders`].
pub trait SenderFamily: IpFamily {
    /// Pods' addresses.
    fn pods(senders: &Senders) -> &Prefix<Self>;
}
impl SenderFamily for V4 {
    #[inline(always)]
    fn pods(senders: &Senders) -> &Prefix<Self> {
        &senders.pods_v4
    }
}
impl SenderFamily for V6 {
    #[inline(always)]
    fn pods(senders: &Senders) -> &Prefix<Self> {
        &senders.pods_v6
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
        assert!(!Senders::default().pods_v4.contains(&v4("0.0.0.0")));
        let pods = Prefix::<V6> {
            network: v6("fd00:10:244::"),
            mask: v6("ffff:ffff:ffff:8000::"),
        };
        assert!(pods.contains(&v6("fd00:10:244:7fff::2")));
        assert!(!pods.contains(&v6("fd00:10:244:8000::2")));
        assert!(!Senders::default().pods_v6.contains(&v6("::")));
    }
}
