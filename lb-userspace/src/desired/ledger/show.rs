//! What the ledger shows of itself.
use lb_common::{BackendId, BackendState, ServiceId};

use crate::{
    agent::RestingBackend,
    desired::{Backend, Frontend, Ledger, ServiceKey},
    model::{Family, Warning},
};

/// A service that has an entry in the maps, or is about to.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its name.
    pub key: &'a ServiceKey,
    /// Its id.
    pub id: ServiceId,
    /// Its frontends: those it wants and has.
    pub frontends: Vec<Frontend>,
    /// The backends in its slots.
    pub slots: &'a [BackendId],
}

impl Ledger {
    /// Every service that is served, by name.
    pub fn served(&self) -> impl Iterator<Item = Shown<'_>> {
        let served = self.services.iter().filter(|(_, assigned)| assigned.served);
        served.map(|(key, assigned)| {
            let owned = assigned
                .frontends
                .keys()
                .filter(|it| self.claims.owner(it) == Some(key));
            Shown {
                key,
                id: assigned.id,
                frontends: owned.copied().collect(),
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

    /// Services that want a frontend which another one has.
    pub fn disputes(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for frontend in self.claims.disputed() {
            let mut claimants = self.claims.claimants(frontend);
            let Some(owner) = claimants.next() else {
                continue;
            };
            for loser in claimants {
                warnings.push(Warning::new(
                    format!("Service {}", loser.port.service),
                    format!("wants {frontend}, which belongs to {}", owner.port),
                    "give one of them another clusterIP or port",
                ));
            }
        }
        warnings
    }
}
