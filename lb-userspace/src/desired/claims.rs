//! Who owns each frontend. Normally nobody disputes one: an API server allocates each cluster address once. Manifests can.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use lb_common::Protocol;

use crate::{desired::ServiceKey, model::Family};

/// What clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The dialled address.
    pub address: IpAddr,
    /// The dialled port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Frontend {
    /// The family of the address.
    pub const fn family(&self) -> Family {
        Family::of(self.address)
    }
    /// Address and port.
    pub const fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.socket_address(), self.protocol)
    }
}

/// Frontends and those who want them. Of several, the lowest name has it: whatever the order of events, the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    by_frontend: BTreeMap<Frontend, BTreeSet<ServiceKey>>,
    /// Those that more than one wants.
    disputed: BTreeSet<Frontend>,
    /// Distinct frontends, IPv4 and IPv6.
    counts: [usize; 2],
}

impl Claims {
    pub(super) fn add(&mut self, frontend: Frontend, key: &ServiceKey) {
        let claimants = self.by_frontend.entry(frontend).or_default();
        if claimants.is_empty() {
            self.counts[frontend.family() as usize] += 1;
        }
        claimants.insert(key.clone());
        if claimants.len() > 1 {
            self.disputed.insert(frontend);
        }
    }

    pub(super) fn remove(&mut self, frontend: Frontend, key: &ServiceKey) {
        if let Some(claimants) = self.by_frontend.get_mut(&frontend) {
            claimants.remove(key);
            if claimants.len() < 2 {
                self.disputed.remove(&frontend);
            }
            if claimants.is_empty() {
                self.by_frontend.remove(&frontend);
                self.counts[frontend.family() as usize] -= 1;
            }
        }
    }

    /// Who has it.
    pub(super) fn owner(&self, frontend: &Frontend) -> Option<&ServiceKey> {
        self.by_frontend.get(frontend)?.first()
    }

    /// Everybody who wants it.
    pub(super) fn claimants(&self, frontend: &Frontend) -> impl Iterator<Item = &ServiceKey> {
        self.by_frontend.get(frontend).into_iter().flatten()
    }

    /// Frontends that more than one wants.
    pub(super) fn disputed(&self) -> impl Iterator<Item = &Frontend> {
        self.disputed.iter()
    }

    /// How many frontends of a family are claimed.
    pub(super) fn count(&self, family: Family) -> usize {
        self.counts[family as usize]
    }

    /// All frontends.
    pub(super) fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.by_frontend.keys()
    }
}
