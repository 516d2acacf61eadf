//! Who owns each frontend. Normally nobody disputes one: an API server allocates each cluster address once. Manifests can.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use lb_common::{ClientScope, Protocol};

use crate::{
    desired::ServiceKey,
    model::{Created, Family},
};

/// What clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The dialled address.
    pub address: IpAddr,
    /// The dialled port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who is served so.
    pub scope: ClientScope,
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
        write!(f, "{}/{}", self.socket_address(), self.protocol)?;
        match self.scope {
            ClientScope::Everybody => Ok(()),
            ClientScope::Inside => f.write_str(" (for clients inside the cluster)"),
        }
    }
}

/// Somebody who wants a frontend. The first in this order has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    /// When its Service was made.
    pub(super) created: Created,
    /// Who it is.
    pub(super) key: ServiceKey,
}

/// Frontends and those who want them. Of several, the oldest Service has it, and of equally old ones the one with the
/// lowest name: whatever the order of events, the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    by_frontend: BTreeMap<Frontend, BTreeSet<Claimant>>,
    /// Those that more than one wants.
    disputed: BTreeSet<Frontend>,
    /// Somebody has come to a dispute or left one since somebody last asked.
    has_news: bool,
    /// Distinct frontends, IPv4 and IPv6.
    counts: [usize; 2],
}

impl Claims {
    pub(super) fn add(&mut self, frontend: Frontend, claimant: Claimant) {
        let claimants = self.by_frontend.entry(frontend).or_default();
        if claimants.is_empty() {
            self.counts[frontend.family() as usize] += 1;
        }
        claimants.insert(claimant);
        if claimants.len() > 1 {
            self.disputed.insert(frontend);
            self.has_news = true;
        }
    }

    pub(super) fn remove(&mut self, frontend: Frontend, claimant: &Claimant) {
        if let Some(claimants) = self.by_frontend.get_mut(&frontend) {
            claimants.remove(claimant);
            if claimants.len() < 2 {
                self.has_news |= self.disputed.remove(&frontend);
            } else {
                self.has_news = true;
            }
            if claimants.is_empty() {
                self.by_frontend.remove(&frontend);
                self.counts[frontend.family() as usize] -= 1;
            }
        }
    }

    /// Who has it.
    pub(super) fn owner(&self, frontend: &Frontend) -> Option<&ServiceKey> {
        let first = self.by_frontend.get(frontend)?.first();
        first.map(|claimant| &claimant.key)
    }

    /// Frontends that more than one wants, with those who do; the first one has it.
    pub(super) fn disputed(
        &self,
    ) -> impl Iterator<Item = (&Frontend, impl Iterator<Item = &Claimant>)> {
        let disputed = self.disputed.iter();
        disputed.map(|it| (it, self.by_frontend.get(it).into_iter().flatten()))
    }

    /// Whether disputes are others than when somebody last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
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
