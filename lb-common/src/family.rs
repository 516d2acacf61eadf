//! The IP family as a type parameter: one datapath source, two machine codes.
use core::{fmt::Debug, hash::Hash};

use bytemuck::{Pod, Zeroable};

/// IPv4 or IPv6, chosen at compile time.
pub trait IpFamily: Copy + Debug + Eq + Ord + Hash + 'static {
    /// An address in network byte order, aligned to words.
    type Address: Pod
        + Eq
        + Ord
        + Hash
        + Debug
        + AsRef<[u32]>
        + From<Self::WireAddress>
        + Into<Self::WireAddress>
        + Into<core::net::IpAddr>;
    /// The same bytes as they lie in a header, aligned to bytes.
    type WireAddress: Pod + Eq + Debug;
    /// Fills keys and values with one address up to a multiple of 8 bytes; always zero.
    ///
    /// Everything that programs keep on their stack is aligned to 8: the compiler may then join its stores to whole
    /// words, and the verifier refuses a word on the stack that is not aligned.
    type Padding: Pod + Eq + Ord + Hash + Debug + Default;
    /// Nobody's address: all zero.
    const UNSPECIFIED: Self::Address;
    /// 4 or 6, as in the first nibble of the header.
    const VERSION: u8;

    /// The network that one client has: of an IPv6 address the first 64 bits, of an IPv4 address all of it.
    fn client_network(address: Self::Address) -> Self::Address;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum V4 {}

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum V6 {}

macro_rules! address {
    ($name:ident, $family:ident, $version:literal, $words:literal, $bytes:literal, $align:literal, $padding:literal, $std:ident) => {
        #[doc = concat!("An IPv", $version, " address: words whose memory is in network byte order.")]
        #[repr(C, align($align))]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable,
        )]
        pub struct $name(pub [u32; $words]);

        impl AsRef<[u32]> for $name {
            #[inline(always)]
            fn as_ref(&self) -> &[u32] {
                &self.0
            }
        }
        impl From<[u8; $bytes]> for $name {
            #[inline(always)]
            fn from(bytes: [u8; $bytes]) -> Self {
                bytemuck::must_cast(bytes)
            }
        }
        impl From<$name> for [u8; $bytes] {
            #[inline(always)]
            fn from(address: $name) -> Self {
                bytemuck::must_cast(address)
            }
        }
        impl From<core::net::$std> for $name {
            fn from(address: core::net::$std) -> Self {
                address.octets().into()
            }
        }
        impl From<$name> for core::net::$std {
            fn from(address: $name) -> Self {
                <[u8; $bytes]>::from(address).into()
            }
        }
        impl From<$name> for core::net::IpAddr {
            fn from(address: $name) -> Self {
                core::net::$std::from(address).into()
            }
        }
        impl IpFamily for $family {
            type Address = $name;
            type WireAddress = [u8; $bytes];
            type Padding = [u32; $padding];
            const UNSPECIFIED: $name = $name([0; $words]);
            const VERSION: u8 = $version;

            #[inline(always)]
            fn client_network(mut address: $name) -> $name {
                for word in address.0.iter_mut().skip(2) {
                    *word = 0;
                }
                address
            }
        }
    };
}
address!(Ipv4Address, V4, 4, 1, 4, 4, 0, Ipv4Addr);
address!(Ipv6Address, V6, 6, 4, 16, 8, 1, Ipv6Addr);

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_client_has_an_ipv4_address_or_an_ipv6_network() {
        let v6 = |text: &str| Ipv6Address::from(text.parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            V6::client_network(v6("2001:db8:1:2:3:4:5:6")),
            v6("2001:db8:1:2::")
        );
        let v4 = Ipv4Address::from([10, 1, 2, 3]);
        assert_eq!(V4::client_network(v4), v4);
    }

    #[test]
    fn memory_of_an_address_is_the_packets_memory() {
        let address = Ipv4Address::from(Ipv4Addr::new(10, 103, 145, 6));
        assert_eq!(bytemuck::bytes_of(&address), [10, 103, 145, 6]);
        let address = Ipv6Address::from("fd00:10:96::1:2".parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            bytemuck::bytes_of(&address)[..6],
            [0xfd, 0, 0, 0x10, 0, 0x96]
        );
        assert_eq!(bytemuck::bytes_of(&address)[12..], [0, 1, 0, 2]);
    }
}
