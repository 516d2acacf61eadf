//! Wire layouts. Fields are byte arrays, so alignment is 1 and the order is the network's; accessors convert.
#![expect(
    unsafe_code,
    reason = "each impl of Header is a layout promise, asserted beside it"
)]

mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod transport;

use lb_common::{IpFamily, Ipv4Address, Ipv6Address, V4, V6};

pub use self::{
    ethernet::{EtherType, EthernetHeader, VlanTag},
    icmp::{ChecksumField, IcmpHeader, NeighbourOption, icmp_type},
    ipv4::Ipv4Header,
    ipv6::{ExtensionHeader, FragmentHeader, Ipv6Header, next_header},
    transport::{Ports, SctpCommonHeader, SctpHeader, SctpInit, TcpFlags, TcpHeader, UdpHeader},
};
use crate::bytes::{checksum::ChecksumDelta, packet::Header};

/// What the two IP headers have in common, as far as the datapath cares.
pub trait IpHeader<F: IpFamily>: Header {
    /// Who sends.
    fn source(&self) -> F::Address;
    /// Who receives.
    fn destination(&self) -> F::Address;
    /// Changes the sender; the header checksum is the caller's next step.
    fn set_source(&mut self, address: F::Address);
    /// Changes the receiver; the header checksum is the caller's next step.
    fn set_destination(&mut self, address: F::Address);
    /// Where the datagram ends, in bytes from where this header starts.
    fn end(&self) -> usize;
    /// Folds a change into the header checksum; IPv6 has none.
    fn adjust_checksum(&mut self, delta: ChecksumDelta);
}

/// A family with its wire layout.
pub trait Wire: IpFamily {
    /// The fixed part of the IP header.
    type IpHeader: IpHeader<Self>;
}
impl Wire for V4 {
    type IpHeader = Ipv4Header;
}
impl Wire for V6 {
    type IpHeader = Ipv6Header;
}

macro_rules! headers {
    ($($type:ty: $size:literal),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$type>() == $size && align_of::<$type>() == 1);
        // SAFETY: repr(C) of bytes and byte arrays: alignment 1 (asserted), no padding, any bits valid.
        unsafe impl Header for $type {}
    )+};
}
headers!(
    EthernetHeader: 14,
    VlanTag: 4,
    Ipv4Header: 20,
    Ipv6Header: 40,
    ExtensionHeader: 2,
    FragmentHeader: 8,
    Ports: 4,
    TcpHeader: 20,
    SctpCommonHeader: 12,
    SctpHeader: 16,
    SctpInit: 20,
    UdpHeader: 8,
    IcmpHeader: 8,
    NeighbourOption: 2,
    ChecksumField: 2,
);

macro_rules! ip_header {
    ($header:ty, $family:ty, $address:ty, |$end:ident| $length:expr, |$this:ident, $delta:ident| $checksum:expr) => {
        impl IpHeader<$family> for $header {
            #[inline(always)]
            fn source(&self) -> $address {
                self.source.into()
            }
            #[inline(always)]
            fn destination(&self) -> $address {
                self.destination.into()
            }
            #[inline(always)]
            fn set_source(&mut self, address: $address) {
                self.source = address.into();
            }
            #[inline(always)]
            fn set_destination(&mut self, address: $address) {
                self.destination = address.into();
            }
            #[inline(always)]
            fn end(&self) -> usize {
                let $end = self;
                $length
            }
            #[inline(always)]
            fn adjust_checksum(&mut self, $delta: ChecksumDelta) {
                let $this = self;
                $checksum;
            }
        }
    };
}
ip_header!(
    Ipv4Header,
    V4,
    Ipv4Address,
    |header| usize::from(u16::from_be_bytes(header.total_length)),
    |header, delta| {
        header.checksum = delta.apply(header.checksum);
    }
);
ip_header!(
    Ipv6Header,
    V6,
    Ipv6Address,
    |header| size_of::<Ipv6Header>() + usize::from(u16::from_be_bytes(header.payload_length)),
    |_header, _delta| {}
);
