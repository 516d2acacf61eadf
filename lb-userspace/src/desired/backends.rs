//! The backends of one family: who has which id, and what became of those who left.
//!
//! An id belongs to one service. It outlives the membership: flows refer to it, so it rests until a sweep of all flows
//! has shown that none does. Whoever comes back to the same service meanwhile gets the same id back.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use lb_common::{BackendEntry, BackendId, BackendState, Port, ServiceId};

use crate::{
    desired::{DesiredBackend, DesiredService, ids::Ids},
    maps::MapFamily,
    model::Target,
};

/// A backend that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where traffic is sent.
    pub address: SocketAddr,
    /// The service it is a backend of.
    pub service_id: ServiceId,
    /// How many owners the id has had.
    pub generation: u32,
    /// Any but free.
    pub state: BackendState,
    /// The pod, if known.
    pub target: Option<Target>,
    /// Its node, if known.
    pub node: Option<String>,
    /// Which retirement the last one was; 0 if it never left.
    pub retirement: u64,
    /// Its pod was last seen on its way out.
    terminating: bool,
    /// When it counts as gone for good.
    gone_at: Option<Duration>,
}

/// All backends of a family.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    ids: Ids,
    used: BTreeMap<BackendId, Backend>,
    /// Generations of ids that are free and have been used.
    generations: BTreeMap<BackendId, u32>,
    by_place: BTreeSet<(ServiceId, SocketAddr, BackendId)>,
    by_address: BTreeSet<(SocketAddr, BackendId)>,
    due: BTreeSet<(Duration, BackendId)>,
    retirements: u64,
    /// Ids whose entry has to be looked at.
    pub(super) touched: BTreeSet<BackendId>,
}

impl Backends {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            ids: Ids::new(capacity),
            used: BTreeMap::new(),
            generations: BTreeMap::new(),
            by_place: BTreeSet::new(),
            by_address: BTreeSet::new(),
            due: BTreeSet::new(),
            retirements: 0,
            touched: BTreeSet::new(),
        }
    }

    /// What stands in the map after a restart. Who is behind the addresses is learned later.
    pub(super) fn restore<F: MapFamily>(&mut self, id: BackendId, entry: &BackendEntry<F>) {
        if entry.state() == BackendState::Free || !self.ids.reserve(id) {
            self.generations.insert(id, entry.generation);
            return;
        }
        let backend = Backend {
            address: SocketAddr::new(entry.address.into(), entry.port.number()),
            service_id: entry.service_id,
            generation: entry.generation,
            state: entry.state(),
            target: None,
            node: None,
            retirement: 0,
            terminating: false,
            gone_at: None,
        };
        self.by_place
            .insert((entry.service_id, backend.address, id));
        self.by_address.insert((backend.address, id));
        self.used.insert(id, backend);
    }

    pub(super) fn get(&self, id: BackendId) -> Option<&Backend> {
        self.used.get(&id)
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = (BackendId, &Backend)> {
        self.used.iter().map(|(id, backend)| (*id, backend))
    }
    pub(super) fn is_active(&self, id: BackendId) -> bool {
        let backend = self.used.get(&id);
        backend.is_some_and(|backend| backend.state == BackendState::Active)
    }
    pub(super) fn free(&self) -> usize {
        self.ids.free()
    }
    /// Every id that has an entry to compare with the map's.
    pub(super) fn known(&self) -> impl Iterator<Item = BackendId> {
        self.used.keys().chain(self.generations.keys()).copied()
    }

    /// The id this backend has or had at this service, if it is the same pod as far as anybody can tell.
    pub(super) fn find(&self, service: ServiceId, wanted: &DesiredBackend) -> Option<BackendId> {
        let uid = wanted.target.as_ref().map(|target| target.uid.as_str());
        let mut found = None;
        for id in self.at(service, wanted.address) {
            let backend = &self.used[&id];
            match backend.state {
                BackendState::Active if backend.may_be(uid) => return Some(id),
                BackendState::Draining | BackendState::Left if backend.may_be(uid) => {
                    found = found.or(Some(id));
                }
                BackendState::Active
                | BackendState::Draining
                | BackendState::Left
                | BackendState::Gone
                | BackendState::Free => {}
            }
        }
        found
    }

    /// The ids that stand for an address at a service: several only if pods followed each other there.
    fn at(&self, service: ServiceId, address: SocketAddr) -> impl Iterator<Item = BackendId> {
        let range = (service, address, 0)..=(service, address, BackendId::MAX);
        self.by_place.range(range).map(|(_, _, id)| *id)
    }

    /// Everything that depends on the service has to be compared with the maps, for all its backends.
    pub(super) fn touch_service(&mut self, service: ServiceId) {
        let all: Vec<BackendId> = self.of_service(service).collect();
        self.touched.extend(all);
    }

    /// The services of the backends with this address that are not gone.
    pub(super) fn services_at(&self, address: SocketAddr) -> impl Iterator<Item = ServiceId> {
        let range = (address, 0)..=(address, BackendId::MAX);
        let backends = self.by_address.range(range).map(|(_, id)| &self.used[id]);
        let alive = backends.filter(|it| it.state == BackendState::Active || has_left(it.state));
        alive.map(|it| it.service_id)
    }

    /// All ids of a service.
    pub(super) fn of_service(&self, service: ServiceId) -> impl Iterator<Item = BackendId> {
        let lowest = SocketAddr::from(([0, 0, 0, 0], 0));
        let range = (service, lowest, 0)..;
        let of_service = move |place: &&(ServiceId, SocketAddr, BackendId)| place.0 == service;
        self.by_place
            .range(range)
            .take_while(of_service)
            .map(|(_, _, id)| *id)
    }

    /// The backend takes new flows: with the id it has, had or now gets. `None` if no id is free.
    pub(super) fn activate(
        &mut self,
        service: ServiceId,
        wanted: &DesiredBackend,
    ) -> Option<BackendId> {
        let id = match self.find(service, wanted) {
            Some(id) => id,
            None => self.allocate(service, wanted.address)?,
        };
        if let Some(backend) = self.used.get_mut(&id) {
            if backend.state != BackendState::Active {
                backend.state = BackendState::Active;
                self.touched.insert(id);
            }
            if let Some(due) = backend.gone_at.take() {
                self.due.remove(&(due, id));
            }
            backend.terminating = false;
            backend.target.clone_from(&wanted.target);
            backend.node.clone_from(&wanted.node);
        }
        Some(id)
    }

    fn allocate(&mut self, service: ServiceId, address: SocketAddr) -> Option<BackendId> {
        let id = self.ids.allocate()?;
        let generation = self.generations.remove(&id).unwrap_or(0).wrapping_add(1);
        let backend = Backend {
            address,
            service_id: service,
            generation,
            state: BackendState::Active,
            target: None,
            node: None,
            retirement: 0,
            terminating: false,
            gone_at: None,
        };
        self.used.insert(id, backend);
        self.by_place.insert((service, address, id));
        self.by_address.insert((address, id));
        self.touched.insert(id);
        Some(id)
    }

    /// The backend takes no new flows. Whether it keeps those it has is learned next: [`Self::observe`], [`Self::leave`].
    pub(super) fn retire(&mut self, id: BackendId) {
        let Some(backend) = self.used.get_mut(&id) else {
            return;
        };
        if backend.state == BackendState::Active {
            self.retirements += 1;
            backend.state = BackendState::Draining;
            backend.retirement = self.retirements;
            self.touched.insert(id);
        }
    }

    /// Takes notice of what the slices of its service say about a backend that takes no new flows.
    ///
    /// Another pod at its address proves nothing: pods in the host's network share their node's. Where a pod's own address
    /// has another pod already, that pod's kernel resets the connections that it does not know.
    pub(super) fn observe(&mut self, id: BackendId, wanted: &DesiredService, gone_at: Duration) {
        let Some(backend) = self.used.get_mut(&id) else {
            return;
        };
        if !has_left(backend.state) {
            return;
        }
        let mut pods = wanted
            .present
            .get(&backend.address.ip())
            .into_iter()
            .flatten();
        let pod = pods.find(|it| backend.may_be(it.uid.as_deref()));
        if let Some(pod) = pod {
            backend.terminating |= pod.terminating;
            if let Some(due) = backend.gone_at.take() {
                self.due.remove(&(due, id));
            }
        } else if backend.terminating && backend.gone_at.is_none() {
            backend.gone_at = Some(gone_at);
            self.due.insert((gone_at, id));
        }
        let serves = pod.is_some() && wanted.serving.contains(&backend.address);
        self.set_serves(id, serves);
    }

    /// The service port of a backend that takes no new flows is no more.
    pub(super) fn leave(&mut self, id: BackendId) {
        self.set_serves(id, false);
    }

    fn set_serves(&mut self, id: BackendId, serves: bool) {
        let state = if serves {
            BackendState::Draining
        } else {
            BackendState::Left
        };
        if let Some(backend) = self.used.get_mut(&id)
            && has_left(backend.state)
            && backend.state != state
        {
            backend.state = state;
            self.touched.insert(id);
        }
    }

    /// The pods with these uids are no more, whatever the slices say; backends that take new flows are only marked.
    pub(super) fn vanished(&mut self, uids: &BTreeSet<String>, gone_at: Duration) {
        for (id, backend) in &mut self.used {
            let uid = backend.target.as_ref().map(|target| &target.uid);
            if uid.is_some_and(|uid| uids.contains(uid)) {
                backend.terminating = true;
                if has_left(backend.state) && backend.gone_at.is_none() {
                    backend.gone_at = Some(gone_at);
                    self.due.insert((gone_at, *id));
                }
            }
        }
    }

    /// Backends whose grace time is over are gone.
    pub(super) fn wake(&mut self, now: Duration) {
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.finish(id);
        }
    }
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    fn finish(&mut self, id: BackendId) {
        let Some(backend) = self.used.get_mut(&id) else {
            return;
        };
        backend.state = BackendState::Gone;
        if let Some(due) = backend.gone_at.take() {
            self.due.remove(&(due, id));
        }
        self.touched.insert(id);
    }

    /// Nothing refers to the backend any more: its id is free. Returns its service; `None` if it takes new flows or
    /// has left once more since.
    pub(super) fn release(&mut self, id: BackendId, retirement: u64) -> Option<ServiceId> {
        let backend = self.used.get(&id)?;
        if backend.state == BackendState::Active || backend.retirement != retirement {
            return None;
        }
        let (service, address, generation) =
            (backend.service_id, backend.address, backend.generation);
        self.finish(id);
        self.used.remove(&id);
        self.by_place.remove(&(service, address, id));
        self.by_address.remove(&(address, id));
        self.generations.insert(id, generation);
        self.ids.release(id);
        Some(service)
    }

    /// What the map should say about an id that was ever used.
    pub(super) fn entry<F: MapFamily>(&self, id: BackendId) -> Option<BackendEntry<F>> {
        if let Some(backend) = self.used.get(&id) {
            return Some(BackendEntry::new(
                F::address(backend.address.ip())?,
                Port::new(backend.address.port()),
                backend.state,
                backend.generation,
                backend.service_id,
            ));
        }
        let generation = *self.generations.get(&id)?;
        Some(BackendEntry::new(
            F::UNSPECIFIED,
            Port::ZERO,
            BackendState::Free,
            generation,
            0,
        ))
    }
}

/// Whether a backend with this state takes no new flows and may have old ones.
fn has_left(state: BackendState) -> bool {
    matches!(state, BackendState::Draining | BackendState::Left)
}

impl Backend {
    /// Whether the pod with this uid could be this one: not knowing is no difference.
    fn may_be(&self, uid: Option<&str>) -> bool {
        match (&self.target, uid) {
            (Some(known), Some(uid)) => known.uid.is_empty() || uid.is_empty() || known.uid == uid,
            _ => true,
        }
    }
}
