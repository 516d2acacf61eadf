//! What the ledger shows of itself.
use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{BackendId, BackendState, ClientScope, Protocol, ServiceId};

use crate::{
    desired::{Backend, Frontend, Ledger, ServiceKey},
    model::{Family, ServiceName, Warning},
};

/// A backend that has left its service. Its id is not used again before a sweep has shown that no flow refers to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RestingBackend {
    /// Its family: ids of the two families are separate.
    pub family: Family,
    /// Its id in BACKENDS.
    pub id: BackendId,
    /// Its generation.
    pub generation: u32,
    /// Which of the agent's retirements this is: an id that came back to life and left again has another.
    pub retirement: u64,
    /// Address and port.
    pub address: SocketAddr,
    /// The protocol of its service; `None` if it was found in the maps and nobody knows its service any more.
    pub protocol: Option<Protocol>,
}

/// A service that has an entry in the maps, or is about to.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its name.
    pub key: &'a ServiceKey,
    /// Its id.
    pub id: ServiceId,
    /// Its frontends: those it wants and has.
    pub frontends: Vec<Frontend>,
    /// Those it wants and another has, with who that is.
    pub taken: Vec<(Frontend, &'a ServiceKey)>,
    /// The backends in its slots.
    pub slots: &'a [BackendId],
}

/// A Service wants frontends that another has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dispute {
    /// Who wants them.
    pub loser: ServiceName,
    /// Who has them.
    pub owner: ServiceName,
    /// In words.
    pub warning: Warning,
}

impl Ledger {
    /// Every service that is served, by name.
    pub fn served(&self) -> impl Iterator<Item = Shown<'_>> {
        let served = self.services.iter().filter(|(_, assigned)| assigned.served);
        served.map(|(key, assigned)| {
            let owners = assigned
                .frontends
                .keys()
                .filter_map(|it| Some((*it, self.claims.owner(it)?)));
            let (owned, taken): (Vec<_>, Vec<_>) = owners.partition(|(_, owner)| *owner == key);
            Shown {
                key,
                id: assigned.id,
                frontends: for_everybody(owned).map(|(frontend, _)| frontend).collect(),
                taken: for_everybody(taken).collect(),
                slots: &assigned.slots,
            }
        })
    }

    /// The name of a service, if its id is in use.
    pub fn name(&self, id: ServiceId) -> Option<&ServiceKey> {
        self.names.get(&id)
    }

    /// Every backend of a family that is not free.
    pub fn backends(&self, family: Family) -> impl Iterator<Item = (BackendId, &Backend)> {
        self.backends[family as usize].iter()
    }

    /// Backends that have left.
    pub fn resting(&self) -> impl Iterator<Item = RestingBackend> {
        let families = Family::ALL.into_iter();
        let all = families.flat_map(|family| self.backends(family).map(move |it| (family, it)));
        let left = all.filter(|(_, (_, backend))| backend.state != BackendState::Active);
        left.map(|(family, (id, backend))| self.resting_backend(family, id, backend))
    }

    /// A backend as something that rests.
    pub fn resting_backend(
        &self,
        family: Family,
        id: BackendId,
        backend: &Backend,
    ) -> RestingBackend {
        RestingBackend {
            family,
            id,
            generation: backend.generation,
            retirement: backend.retirement,
            address: backend.address,
            protocol: self.name(backend.service_id).map(|key| key.port.protocol),
        }
    }

    /// Services that want frontends which others have, once for each pair of them.
    pub fn disputes(&self) -> Vec<Dispute> {
        let mut disputes: BTreeMap<_, Vec<&Frontend>> = BTreeMap::new();
        for (frontend, mut claimants) in self.claims.disputed() {
            let Some(owner) = claimants.next() else {
                continue;
            };
            for loser in claimants {
                let older = owner.created < loser.created;
                let pair = (&loser.key.port.service, &owner.key.port.service, older);
                disputes.entry(pair).or_default().push(frontend);
            }
        }
        let disputes = disputes.into_iter();
        let warnings = disputes.map(|((loser, owner, older), frontends)| {
            let why = if older {
                "it is older"
            } else {
                "its name comes first"
            };
            let warning = Warning::new(
                format!("Service {loser}"),
                format!("wants {}, which {owner} has: {why}", list(&frontends)),
                "give one of them another address or port",
            );
            Dispute {
                loser: loser.clone(),
                owner: owner.clone(),
                warning,
            }
        });
        warnings.collect()
    }
}

/// What clients inside the cluster get at the same addresses is not told twice.
fn for_everybody(
    frontends: Vec<(Frontend, &ServiceKey)>,
) -> impl Iterator<Item = (Frontend, &ServiceKey)> {
    let all = frontends.into_iter();
    all.filter(|(frontend, _)| frontend.scope == ClientScope::Everybody)
}

/// How many frontends a warning names: two Services of 5,000 ports can want the same address.
const NAMED: usize = 3;

fn list(frontends: &[&Frontend]) -> String {
    let named = frontends.iter().take(NAMED).map(ToString::to_string);
    let named = named.collect::<Vec<_>>().join(", ");
    match frontends.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
