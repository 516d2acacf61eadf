//! What becomes of packets to an address of a Service that are for none of its ports.
use std::{collections::BTreeMap, net::IpAddr};

use lb_common::FrontendFlags;

use crate::model::{Family, NotServed, Place, Service, ServiceName};

/// Addresses, and the flags of their entry for all ports that have none of their own.
pub type Addresses = BTreeMap<IpAddr, FrontendFlags>;

/// The cluster addresses of a Service. Unknown ports of it are refused, but for addresses that the node itself has, and for
/// Services of another proxy: what is for them goes on untouched.
pub fn addresses(service: &Service, place: &Place) -> Addresses {
    let is_others = service.not_served == Some(NotServed::OtherProxy);
    let flags = |address: &IpAddr| {
        if is_others || place.has(*address) {
            FrontendFlags::NONE
        } else {
            FrontendFlags::REFUSES
        }
    };
    let addresses = service.cluster_ips.iter();
    addresses.map(|it| (*it, flags(it))).collect()
}

/// The node's own addresses within the prefixes that Services get theirs from: packets for them are not dropped.
pub fn own_addresses(place: &Place) -> Addresses {
    let own = place.addresses.iter().chain(&place.local_addresses);
    let is_of_services = |address: &&IpAddr| {
        let mut prefixes = place.service_cidrs.iter();
        prefixes.any(|it| it.contains(*address))
    };
    own.filter(is_of_services)
        .map(|it| (*it, FrontendFlags::NONE))
        .collect()
}

/// Who has which address: normally one Service each.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    by_address: [BTreeMap<IpAddr, BTreeMap<Option<ServiceName>, FrontendFlags>>; 2],
    by_holder: BTreeMap<Option<ServiceName>, Addresses>,
}

impl Holders {
    /// How many addresses of a family would be held that are not yet.
    pub(super) fn new_of(&self, addresses: &Addresses, family: Family) -> usize {
        let held = &self.by_address[family as usize];
        let of_family = addresses.keys().filter(|it| Family::of(**it) == family);
        of_family.filter(|it| !held.contains_key(*it)).count()
    }

    /// How many addresses of a family are held.
    pub(super) fn count(&self, family: Family) -> usize {
        self.by_address[family as usize].len()
    }

    /// What a Service holds from now on; `None` is the node. Returns the addresses whose entry may be another now.
    pub(super) fn set(
        &mut self,
        holder: Option<&ServiceName>,
        addresses: &Addresses,
    ) -> Vec<IpAddr> {
        let holder = holder.cloned();
        let old = self.by_holder.get(&holder).cloned().unwrap_or_default();
        if old == *addresses {
            return Vec::new();
        }
        for address in old.keys() {
            let held = &mut self.by_address[Family::of(*address) as usize];
            if let Some(holders) = held.get_mut(address) {
                holders.remove(&holder);
                if holders.is_empty() {
                    held.remove(address);
                }
            }
        }
        for (address, flags) in addresses {
            let held = &mut self.by_address[Family::of(*address) as usize];
            let holders = held.entry(*address).or_default();
            holders.insert(holder.clone(), *flags);
        }
        let mut touched: Vec<IpAddr> = old.keys().chain(addresses.keys()).copied().collect();
        touched.sort_unstable();
        touched.dedup();
        if addresses.is_empty() {
            self.by_holder.remove(&holder);
        } else {
            self.by_holder.insert(holder, addresses.clone());
        }
        touched
    }

    /// The flags of an address's entry: it is only refused what every holder refuses.
    pub(super) fn flags(&self, address: IpAddr) -> Option<FrontendFlags> {
        let holders = self.by_address[Family::of(address) as usize].get(&address)?;
        let mut flags = holders.values();
        let all_refuse = flags.all(|it| it.has(FrontendFlags::REFUSES));
        Some(if all_refuse {
            FrontendFlags::REFUSES
        } else {
            FrontendFlags::NONE
        })
    }

    /// All addresses of a family.
    pub(super) fn of_family(&self, family: Family) -> impl DoubleEndedIterator<Item = IpAddr> {
        self.by_address[family as usize].keys().copied()
    }
}
