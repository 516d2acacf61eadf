//! What is in the maps, as a value.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::{
    BackendEntry, BackendId, FrontendEntry, FrontendKey, IpFamily, Ipv4Address, Ipv6Address,
    NetworkFamily, Networks, ServiceEntry, ServiceId, SlotEntry, V4, V6,
};

use crate::{maps::MapName, model::Family};

/// The maps of one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyContents<F: IpFamily> {
    /// FRONTENDS.
    pub frontends: BTreeMap<FrontendKey<F>, FrontendEntry>,
    /// BACKENDS: every entry that is not all zero.
    pub backends: BTreeMap<BackendId, BackendEntry<F>>,
    /// `SOURCE_RANGES`.
    pub source_ranges: BTreeSet<(ServiceId, IpNet)>,
}

impl<F: IpFamily> Default for FamilyContents<F> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            source_ranges: BTreeSet::new(),
        }
    }
}

impl<F: IpFamily> FamilyContents<F> {
    /// Whether a client is within a source range of a service.
    pub fn is_in_source_range(&self, service_id: ServiceId, client: F::Address) -> bool {
        let client: IpAddr = client.into();
        let of_service = self
            .source_ranges
            .iter()
            .filter(|(id, _)| *id == service_id);
        of_service
            .map(|(_, range)| range)
            .any(|it| it.contains(&client))
    }
}

/// All maps that the agent fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapContents {
    /// `FRONTENDS_V4`, `BACKENDS_V4`.
    pub v4: FamilyContents<V4>,
    /// `FRONTENDS_V6`, `BACKENDS_V6`.
    pub v6: FamilyContents<V6>,
    /// NETWORKS.
    pub networks: Networks,
    /// `FRONTEND_EPOCH`.
    pub frontend_epoch: u32,
    /// Frontends were given to other services, or removed, since `frontend_epoch` was written.
    pub frontends_moved: bool,
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
pub trait MapFamily: NetworkFamily {
    /// The family as a value.
    const FAMILY: Family;
    /// Its FRONTENDS.
    const FRONTENDS: MapName;
    /// Its BACKENDS.
    const BACKENDS: MapName;
    /// Its `SOURCE_RANGES`.
    const SOURCE_RANGES: MapName;
    /// The address that is nothing but ones.
    const EVERY_BIT: Self::Address;
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
    const SOURCE_RANGES: MapName = MapName::SourceRangesV4;
    const EVERY_BIT: Self::Address = Ipv4Address([u32::MAX]);
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
    const SOURCE_RANGES: MapName = MapName::SourceRangesV6;
    const EVERY_BIT: Self::Address = Ipv6Address([u32::MAX; 4]);
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
