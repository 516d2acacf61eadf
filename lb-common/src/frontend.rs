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
    /// No bit has a meaning in this layout; zero.
    pub flags: u32,
}
