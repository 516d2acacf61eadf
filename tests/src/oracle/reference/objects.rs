//! What the reference is told of: backends, services, devices.
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::BackendState;

/// A backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// Active as long as it is a member of its service.
    pub state: BackendState,
    /// How often its id was given away.
    pub generation: u32,
    /// Its service.
    pub service: u32,
}

/// A service.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Who may get new flows, in the order of the slots.
    pub candidates: Vec<u32>,
    /// Chosen by hash, not by chance.
    pub by_hash: bool,
    /// Whose requests reach backends with the node's address.
    pub masqueraded: Masqueraded,
    /// How long clients stay with a backend; 0: they do not.
    pub affinity_seconds: u32,
    /// Which backend each client has.
    pub clients: HashMap<IpAddr, Stay>,
}

/// A client that has a backend.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// The backend.
    pub backend: u32,
    /// Its generation then.
    pub generation: u32,
    /// When the client last opened a flow, in jiffies.
    pub since: u32,
}

/// Whose requests reach backends with the node's address, beside those of clients that are their own backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masqueraded {
    /// Nobody's.
    #[default]
    Nobody,
    /// Those of all but pods.
    Strangers,
    /// Everybody's.
    Everybody,
}

/// Whether an address begins so.
pub(super) fn begins_with_one_of(address: IpAddr, starts: &[Vec<u8>]) -> bool {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    starts.iter().any(|start| bytes.starts_with(start))
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Masquerade address; unspecified: none.
    pub masquerade_v4: Ipv4Addr,
    /// Masquerade address; unspecified: none.
    pub masquerade_v6: Ipv6Addr,
    /// The bridge it is a port of; 0: none.
    pub bridge: u32,
}
impl Default for Device {
    fn default() -> Self {
        Self {
            masquerade_v4: Ipv4Addr::UNSPECIFIED,
            masquerade_v6: Ipv6Addr::UNSPECIFIED,
            bridge: 0,
        }
    }
}
