//! A frontend: the address, port and protocol that clients dial.
use bytemuck::{Pod, Zeroable};

use crate::{family::IpFamily, port::Port, service::ServiceId};

/// Key of FRONTENDS.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey<F: IpFamily> {
    /// The dialled address.
    pub address: F::Address,
    /// The dialled port.
    pub port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero.
    pub spare: u8,
    /// Always zero.
    pub padding: F::Padding,
}

impl<F: IpFamily> FrontendKey<F> {
    /// The frontend at this address.
    #[inline(always)]
    pub fn new(address: F::Address, port: Port, protocol: u8) -> Self {
        Self {
            address,
            port,
            protocol,
            spare: 0,
            padding: F::Padding::default(),
        }
    }
}

/// Value of FRONTENDS: which service answers here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FrontendEntry {
    /// Index into SERVICES.
    pub service_id: ServiceId,
    /// How its requests are treated.
    pub flags: FrontendFlags,
}

/// Bits of [`FrontendEntry::flags`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FrontendFlags(pub u32);

impl FrontendFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// Requests get the node's address as their source on their way to the backend, so that replies come back here:
    /// the client is outside, and the backend may be on another node.
    pub const MASQUERADE: Self = Self(1);

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
