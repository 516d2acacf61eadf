//! A backend: the address and port that traffic of one service is sent to.
use crate::{family::IpFamily, port::Port, service::ServiceId};

/// Names a backend *of one service*: the same pod behind two services has two ids, so that leaving one of them ends
/// its flows there and nowhere else. Zero is never handed out.
pub type BackendId = u32;

/// What may be sent to a backend.
///
/// In the entry it stands as a byte. The order is the order of a backend's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BackendState {
    /// Nobody: the id is free.
    Free = 0,
    /// A member of its service: takes new flows.
    Active = 1,
    /// Takes no new flows. It is still a serving endpoint of its service (a terminating pod that answers, or one that a
    /// traffic policy or a topology hint excludes), and keeps the flows that it has.
    Draining = 2,
    /// Not a serving endpoint of its service. TCP flows continue to their end; UDP flows select another backend.
    Left = 3,
    /// The pod behind it is gone for good.
    Gone = 4,
}

impl BackendState {
    /// Whether the backend keeps the UDP flows that it has (kube-proxy's `conntrack/cleanup.go`: a *serving* endpoint).
    #[inline(always)]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
    /// The state of a byte; an unknown byte is [`BackendState::Free`].
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Active,
            2 => Self::Draining,
            3 => Self::Left,
            4 => Self::Gone,
            _ => Self::Free,
        }
    }
}

/// Value of BACKENDS, an array indexed by [`BackendId`].
///
/// Address, port, generation and service are written only while nothing refers to the id; `state` alone changes in a
/// living entry, and a byte cannot be torn.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendEntry<F: IpFamily> {
    /// The pod's address.
    pub address: F::Address,
    /// The target port.
    pub port: Port,
    /// A [`BackendState`] as a byte.
    pub state: u8,
    /// Zero.
    pub spare: u8,
    /// Grows each time the id is given to somebody else: a flow of an earlier owner is recognised by it.
    pub generation: u32,
    /// The service it is a backend of.
    pub service_id: ServiceId,
    /// Zero.
    pub padding: F::Padding,
}

impl<F: IpFamily> BackendEntry<F> {
    /// A backend of a service.
    pub fn new(
        address: F::Address,
        port: Port,
        state: BackendState,
        generation: u32,
        service_id: ServiceId,
    ) -> Self {
        Self {
            address,
            port,
            state: state as u8,
            spare: 0,
            generation,
            service_id,
            padding: F::Padding::default(),
        }
    }
    /// The state as an enum.
    #[inline(always)]
    pub fn state(&self) -> BackendState {
        BackendState::from_byte(self.state)
    }
}
