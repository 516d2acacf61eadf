//! What the maps should say, about everything or about a part of it.
use std::collections::BTreeSet;

use ipnet::IpNet;
use lb_common::{
    Algorithm, BackendId, ClientScope, FrontendEntry, FrontendFlags, FrontendKey, IpFamily, Port,
    Protocol, ServiceEntry, ServiceId, SlotEntry, V4, V6,
};

use crate::{
    desired::{Backend, Frontend, Ledger},
    maps::{FamilyContents, MapContents, MapFamily, dump::is_any_port},
    model::Family,
};

/// A part of the maps: the keys that a plan looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Of the IPv4 maps.
    pub v4: FamilyScope<V4>,
    /// Of the IPv6 maps.
    pub v6: FamilyScope<V6>,
    /// Keys of SERVICES. The slots they name belong to them.
    pub services: BTreeSet<ServiceId>,
}

/// The part of a family's maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyScope<F: IpFamily> {
    /// Keys of FRONTENDS.
    pub frontends: BTreeSet<FrontendKey<F>>,
    /// Keys of BACKENDS.
    pub backends: BTreeSet<BackendId>,
    /// Keys of `SOURCE_RANGES`.
    pub source_ranges: BTreeSet<(ServiceId, IpNet)>,
}

impl<F: IpFamily> Default for FamilyScope<F> {
    fn default() -> Self {
        Self {
            frontends: BTreeSet::new(),
            backends: BTreeSet::new(),
            source_ranges: BTreeSet::new(),
        }
    }
}

impl<F: IpFamily> FamilyScope<F> {
    fn extend(&mut self, mut other: Self) {
        self.frontends.append(&mut other.frontends);
        self.backends.append(&mut other.backends);
        self.source_ranges.append(&mut other.source_ranges);
    }
    fn of(contents: &FamilyContents<F>) -> Self {
        Self {
            frontends: contents.frontends.keys().copied().collect(),
            backends: contents.backends.keys().copied().collect(),
            source_ranges: contents.source_ranges.clone(),
        }
    }
}

impl Scope {
    /// Everything that stands in these contents.
    pub fn of(contents: &MapContents) -> Self {
        Self {
            v4: FamilyScope::of(&contents.v4),
            v6: FamilyScope::of(&contents.v6),
            services: contents.services.keys().copied().collect(),
        }
    }

    /// Takes in another part.
    pub fn extend(&mut self, mut other: Self) {
        self.v4.extend(other.v4);
        self.v6.extend(other.v6);
        self.services.append(&mut other.services);
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Ledger {
    /// Everything that the ledger has an opinion about.
    pub fn everything(&self) -> Scope {
        let mut scope = Scope {
            services: self.names.keys().copied().collect(),
            ..Scope::default()
        };
        let [v4, v6] = &self.backends;
        scope.v4.backends = v4.known().collect();
        scope.v6.backends = v6.known().collect();
        scope.v4.frontends = self.frontend_keys().collect();
        scope.v6.frontends = self.frontend_keys().collect();
        for (key, assigned) in &self.services {
            let of_family = match key.family {
                Family::V4 => &mut scope.v4.source_ranges,
                Family::V6 => &mut scope.v6.source_ranges,
            };
            of_family.extend(assigned.source_ranges.iter().map(|it| (assigned.id, *it)));
        }
        scope
    }

    fn frontend_keys<F: MapFamily>(&self) -> impl Iterator<Item = FrontendKey<F>> {
        let addresses = self.addresses.of_family(F::FAMILY).filter_map(F::address);
        let claimed = self.claims.frontends().filter_map(Frontend::key);
        let direct = self.backends[F::FAMILY as usize].iter();
        let direct = direct.filter_map(|(_, it)| self.direct_key(it));
        claimed
            .chain(addresses.map(FrontendKey::any_port))
            .chain(direct)
    }

    /// The key of a backend's own address in FRONTENDS, if its service is known.
    pub(super) fn direct_key<F: MapFamily>(&self, backend: &Backend) -> Option<FrontendKey<F>> {
        let service = self.names.get(&backend.service_id)?;
        let address = F::address(backend.address.ip())?;
        let port = Port::new(backend.address.port());
        let protocol = service.port.protocol.number();
        Some(FrontendKey::new(address, port, protocol))
    }

    /// The flags of a backend's own address, if this is one.
    fn direct_flags(&self, frontend: &Frontend) -> Option<FrontendFlags> {
        if frontend.scope != ClientScope::Everybody || self.untracked.contains(frontend) {
            return None;
        }
        let backends = &self.backends[frontend.family() as usize];
        let services = backends.services_at(frontend.socket_address());
        let services = services.filter_map(|id| self.services.get(self.names.get(&id)?));
        let mut of_protocol = services
            .filter(|it| it.served && self.names[&it.id].port.protocol == frontend.protocol)
            .peekable();
        of_protocol.peek()?;
        // Only pods and processes of the node can reach a Service that has no address but its cluster address.
        let is_outside = of_protocol.any(|it| it.frontends.len() > 1);
        Some(if is_outside {
            FrontendFlags::DIRECT.with(FrontendFlags::DIRECT_FROM_OUTSIDE)
        } else {
            FrontendFlags::DIRECT
        })
    }

    /// What the maps should say about a part of themselves. A key of it that is missing in the answer should be missing
    /// in the map.
    pub fn contents(&self, scope: &Scope) -> MapContents {
        let mut contents = MapContents {
            v4: self.family_contents(&scope.v4),
            v6: self.family_contents(&scope.v6),
            ..MapContents::default()
        };
        for id in &scope.services {
            let assigned = self.names.get(id).and_then(|key| self.services.get(key));
            let Some(assigned) = assigned.filter(|it| it.served) else {
                continue;
            };
            let entry = ServiceEntry {
                slots: assigned.region,
                algorithm: Algorithm::Random as u8,
                affinity_seconds: assigned.affinity_seconds,
                sibling: self.sibling(&self.names[id]).unwrap_or_default(),
                ..ServiceEntry::default()
            };
            contents.services.insert(*id, entry);
            let slot = |backend_id: &BackendId| SlotEntry {
                backend_id: *backend_id,
                service_id: *id,
            };
            let slots = assigned.slots.iter().map(slot);
            contents
                .slots
                .extend((assigned.region.start()..).zip(slots));
        }
        contents
    }

    fn family_contents<F: MapFamily>(&self, scope: &FamilyScope<F>) -> FamilyContents<F> {
        let mut contents = FamilyContents::default();
        for key in &scope.frontends {
            if is_any_port(key) {
                if let Some(flags) = self.addresses.flags(key.address.into()) {
                    let entry = FrontendEntry {
                        service_id: 0,
                        flags,
                    };
                    contents.frontends.insert(*key, entry);
                }
                continue;
            }
            let frontend = Frontend::from_key(key);
            let owner = frontend.and_then(|it| self.claims.owner(&it).cloned());
            let assigned = owner.and_then(|key| self.services.get(&key));
            if let Some(assigned) = assigned.filter(|it| it.served) {
                let flags = frontend.and_then(|it| assigned.frontends.get(&it).copied());
                let entry = FrontendEntry {
                    service_id: assigned.id,
                    flags: flags.unwrap_or_default(),
                };
                contents.frontends.insert(*key, entry);
            } else if let Some(flags) = frontend.and_then(|it| self.direct_flags(&it)) {
                let entry = FrontendEntry {
                    service_id: 0,
                    flags,
                };
                contents.frontends.insert(*key, entry);
            }
        }
        let is_wanted = |(id, range): &&(ServiceId, IpNet)| {
            let assigned = self.names.get(id).and_then(|key| self.services.get(key));
            assigned.is_some_and(|it| it.served && it.source_ranges.contains(range))
        };
        let ranges = scope.source_ranges.iter().filter(is_wanted);
        contents.source_ranges = ranges.copied().collect();
        let backends = &self.backends[F::FAMILY as usize];
        for id in &scope.backends {
            if let Some(entry) = backends.entry::<F>(*id) {
                contents.backends.insert(*id, entry);
            }
        }
        contents
    }
}

impl Frontend {
    /// The key in FRONTENDS, if the address is of this family.
    pub fn key<F: MapFamily>(&self) -> Option<FrontendKey<F>> {
        let address = F::address(self.address)?;
        let key = FrontendKey::new(address, Port::new(self.port), self.protocol.number());
        Some(match self.scope {
            ClientScope::Everybody => key,
            ClientScope::Inside => key.inside(),
        })
    }

    /// The frontend of a key, if it has a protocol that services are made of.
    pub fn from_key<F: MapFamily>(key: &FrontendKey<F>) -> Option<Self> {
        Some(Self {
            address: key.address.into(),
            port: key.port.number(),
            protocol: Protocol::from_number(key.protocol)?,
            scope: ClientScope::from_number(key.scope)?,
        })
    }

    /// Whether the maps have it, for a Service.
    pub fn is_in(&self, contents: &MapContents) -> bool {
        let v4 = self.key().and_then(|key| contents.v4.frontends.get(&key));
        let v6 = self.key().and_then(|key| contents.v6.frontends.get(&key));
        v4.or(v6).is_some_and(|entry| entry.service_id != 0)
    }
}
