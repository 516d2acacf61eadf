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
    /// For whom: a [`ClientScope`] as a byte.
    pub scope: u8,
    /// Always zero.
    pub padding: F::Padding,
}

/// Who an entry of FRONTENDS is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ClientScope {
    /// Whoever dials the address, but for those of an entry for [`Self::Inside`].
    #[default]
    Everybody = 0,
    /// Pods of the cluster and the node's own processes, where the entry for everybody says
    /// [`FrontendFlags::INSIDE_ELSEWHERE`].
    Inside = 1,
}

impl ClientScope {
    /// The scope of a byte, if it is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Everybody),
            1 => Some(Self::Inside),
            _ => None,
        }
    }
}

impl<F: IpFamily> FrontendKey<F> {
    /// The frontend at this address, for everybody.
    #[inline(always)]
    pub fn new(address: F::Address, port: Port, protocol: u8) -> Self {
        Self {
            address,
            port,
            protocol,
            scope: ClientScope::Everybody as u8,
            padding: F::Padding::default(),
        }
    }
    /// What stands for all ports and protocols of an address that have no entry of their own. No Service has port 0.
    #[inline(always)]
    pub fn any_port(address: F::Address) -> Self {
        Self::new(address, Port::ZERO, 0)
    }
    /// The same frontend for clients inside the cluster.
    #[inline(always)]
    #[must_use]
    pub fn inside(self) -> Self {
        Self {
            scope: ClientScope::Inside as u8,
            ..self
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
    /// The same, but for requests of the cluster's pods ([`crate::networks`]).
    pub const MASQUERADE_STRANGERS: Self = Self(1 << 1);
    /// Clients inside the cluster are served as the entry for [`ClientScope::Inside`] says, if there is one.
    pub const INSIDE_ELSEWHERE: Self = Self(1 << 2);
    /// For the node's own processes alone: nobody else may have packets for a loopback address, and the kernel drops
    /// those who try as long as nobody translates them.
    pub const PROCESSES_ONLY: Self = Self(1 << 3);
    /// If there is no backend, requests are dropped rather than refused: there are some for other clients.
    pub const BACKENDS_ELSEWHERE: Self = Self(1 << 4);
    /// Of an entry for [`FrontendKey::any_port`]: the address is a Service's, and what is for no port of it is refused.
    /// Without this flag the address is left to others.
    pub const REFUSES: Self = Self(1 << 5);
    /// Only clients within the service's part of `SOURCE_RANGES` may come.
    pub const SOURCE_RANGES: Self = Self(1 << 6);
    /// With [`Self::SOURCE_RANGES`]: the node's own processes are not among them.
    pub const NODE_EXCLUDED: Self = Self(1 << 7);
    /// Address and port are a backend's own. Direct connections of pods to it are tracked, so that none shares its reply
    /// tuple with a Service's flow. The service is 0.
    pub const DIRECT: Self = Self(1 << 8);
    /// With [`Self::DIRECT`]: direct connections of all clients are tracked, because clients outside the cluster can reach
    /// the backend through its Service.
    pub const DIRECT_FROM_OUTSIDE: Self = Self(1 << 9);
    /// What processes of the node send here is translated packet by packet, at the node's device
    /// ([`crate::DeviceFlags::NODE`]), and not at their sockets.
    pub const AT_NODE_DEVICE: Self = Self(1 << 10);

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
