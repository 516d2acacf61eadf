//! What is in the maps, as a value.
use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{
    BackendEntry, BackendId, FrontendEntry, FrontendKey, IpFamily, SenderFamily, Senders,
    ServiceEntry, ServiceId, SlotEntry, V4, V6,
};

use crate::{maps::MapName, model::Family};

/// The maps of one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyContents<F: IpFamily> {
    /// FRONTENDS.
    pub frontends: BTreeMap<FrontendKey<F>, FrontendEntry>,
    /// BACKENDS: every entry that is not all zero.
    pub backends: BTreeMap<BackendId, BackendEntry<F>>,
}

impl<F: IpFamily> Default for FamilyContents<F> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
        }
    }
}

/// All maps that the agent fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapContents {
    /// `FRONTENDS_V4`, `BACKENDS_V4`.
    pub v4: FamilyContents<V4>,
    /// `FRONTENDS_V6`, `BACKENDS_V6`.
    pub v6: FamilyContents<V6>,
    /// SENDERS.
    pub senders: Senders,
    /// SERVICES: every entry that is not all zero.
    pub services: BTreeMap<ServiceId, ServiceEntry>,
    /// SLOTS, by absolute index. Slots outside the regions that services name may be missing here: nobody reads them.
    pub slots: BTreeMap<u32, SlotEntry>,
}

impl MapContents {
    /// Whether nobody can dial anything.
    pub fn has_no_frontends(&self) -> bool {
        self.v4.frontends.is_empty() && self.v6.frontends.is_empty()
    }
}

/// An IP family as the agent sees it: its part of the contents, its addresses, its maps.
pub trait MapFamily: SenderFamily {
    /// The family as a value.
    const FAMILY: Family;
    /// Its FRONTENDS.
    const FRONTENDS: MapName;
    /// Its BACKENDS.
    const BACKENDS: MapName;
    /// Its part of the contents.
    fn of(contents: &MapContents) -> &FamilyContents<Self>;
    /// Its part of the contents.
    fn of_mut(contents: &mut MapContents) -> &mut FamilyContents<Self>;
    /// The address, if it is one of this family.
    fn address(address: IpAddr) -> Option<Self::Address>;
}

impl MapFamily for V4 {
    const FAMILY: Family = Family::V4;
    const FRONTENDS: MapName = MapName::FrontendsV4;
    const BACKENDS: MapName = MapName::BackendsV4;
    fn of(contents: &MapContents) -> &FamilyContents<Self> {
        &contents.v4
    }
    fn of_mut(contents: &mut MapContents) -> &mut FamilyContents<Self> {
        &mut contents.v4
    }
    fn address(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(address) => Some(address.into()),
            IpAddr::V6(_) => None,
        }
    }
}

impl MapFamily for V6 {
    const FAMILY: Family = Family::V6;
    const FRONTENDS: MapName = MapName::FrontendsV6;
    const BACKENDS: MapName = MapName::BackendsV6;
    fn of(contents: &MapContents) -> &FamilyContents<Self> {
        &contents.v6
    }
    fn of_mut(contents: &mut MapContents) -> &mut FamilyContents<Self> {
        &mut contents.v6
    }
    fn address(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address.into()),
        }
    }
}
