//! Which addresses processes of the node reach through its device: those of frontends that say so.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use lb_common::{FrontendEntry, FrontendFlags, FrontendKey, V4, V6};
use tracing::warn;

use crate::{
    datapath::devices::node_device::NodeDevice,
    desired::Frontend,
    maps::{MapContents, MapFamily},
    reconcile::{Change, FamilyChange},
};

/// The routes to the node's device. They are there before the frontends that need them, and go after them.
#[derive(Debug, Default)]
pub(super) struct NodeRoutes {
    device: Option<Arc<NodeDevice>>,
    frontends: BTreeMap<IpAddr, BTreeSet<Frontend>>,
}

impl NodeRoutes {
    pub(super) const fn new(device: Option<Arc<NodeDevice>>) -> Self {
        Self {
            device,
            frontends: BTreeMap::new(),
        }
    }

    /// The maps were read: these are the frontends.
    pub(super) fn set(&mut self, actual: &MapContents) {
        let Some(device) = &self.device else {
            return;
        };
        self.frontends.clear();
        for frontend in at_device::<V4>(actual).chain(at_device::<V6>(actual)) {
            let of_address = self.frontends.entry(frontend.address).or_default();
            of_address.insert(frontend);
        }
        let addresses = self.frontends.keys().copied().collect();
        told(&"Services", device.set_routes(&addresses));
    }

    /// These changes are about to be made.
    pub(super) fn before(&mut self, changes: &[Change]) {
        let Some(device) = &self.device else {
            return;
        };
        for (frontend, is_at_device) in changes.iter().filter_map(of_change) {
            if !is_at_device {
                continue;
            }
            let of_address = self.frontends.entry(frontend.address).or_default();
            if of_address.is_empty() {
                told(&frontend.address, device.route(frontend.address));
            }
            of_address.insert(frontend);
        }
    }

    /// These changes have been made.
    pub(super) fn after(&mut self, changes: &[Change]) {
        let Some(device) = &self.device else {
            return;
        };
        for (frontend, is_at_device) in changes.iter().filter_map(of_change) {
            let Some(of_address) = self.frontends.get_mut(&frontend.address) else {
                continue;
            };
            if !is_at_device && of_address.remove(&frontend) && of_address.is_empty() {
                self.frontends.remove(&frontend.address);
                told(&frontend.address, device.unroute(frontend.address));
            }
        }
    }
}

fn told(what: &dyn std::fmt::Display, result: io::Result<()>) {
    if let Err(error) = result {
        warn!(
            "cannot route {what} to the node's device: {error}; its processes may not reach UDP and SCTP Services; trying again with the next check of devices"
        );
    }
}

fn is_at_device(entry: FrontendEntry) -> bool {
    entry.flags.has(FrontendFlags::AT_NODE_DEVICE)
}

fn at_device<F: MapFamily>(contents: &MapContents) -> impl Iterator<Item = Frontend> {
    let frontends = F::of(contents).frontends.iter();
    let at_device = frontends.filter(|(_, entry)| is_at_device(**entry));
    at_device.filter_map(|(key, _)| Frontend::from_key(key))
}

/// The frontend that a change is about, and whether it is at the device then.
fn of_change(change: &Change) -> Option<(Frontend, bool)> {
    match change {
        Change::V4(change) => of_family(change),
        Change::V6(change) => of_family(change),
        Change::PutNetworks(_)
        | Change::PutFrontendEpoch(_)
        | Change::PutSlots(..)
        | Change::PutService(..)
        | Change::RemoveService(_) => None,
    }
}

fn of_family<F: MapFamily>(change: &FamilyChange<F>) -> Option<(Frontend, bool)> {
    let (key, is_at_device): (&FrontendKey<F>, bool) = match change {
        FamilyChange::PutFrontend(key, entry) => (key, is_at_device(*entry)),
        FamilyChange::RemoveFrontend(key) => (key, false),
        FamilyChange::PutBackend(..)
        | FamilyChange::RetireBackend(..)
        | FamilyChange::PutSourceRange(..)
        | FamilyChange::RemoveSourceRange(..) => return None,
    };
    Some((Frontend::from_key(key)?, is_at_device))
}
