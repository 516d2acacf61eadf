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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::desired::tests::service;

    #[test]
    fn an_address_refuses_unless_it_is_the_nodes_own_or_another_proxys() {
        let at = |text: &str| -> IpAddr { text.parse().unwrap() };
        let mut web = service("web", "10.96.0.1");
        let place = Place {
            addresses: vec![at("192.0.2.1")],
            local_addresses: BTreeSet::from([at("10.96.0.7"), at("127.0.0.1")]),
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            ..Place::default()
        };
        let flags = |web: &Service| addresses(web, &place).into_values().collect::<Vec<_>>();
        assert_eq!(flags(&web), [FrontendFlags::REFUSES]);
        web.cluster_ips = vec![at("10.96.0.7")];
        assert_eq!(flags(&web), [FrontendFlags::NONE]);
        web.cluster_ips = vec![at("10.96.0.1")];
        web.not_served = Some(NotServed::OtherProxy);
        assert_eq!(flags(&web), [FrontendFlags::NONE]);
        let own = own_addresses(&place).into_keys().collect::<Vec<_>>();
        assert_eq!(own, [at("10.96.0.7")]);
    }

    #[test]
    fn what_one_holder_leaves_to_others_is_refused_for_nobody() {
        let at: IpAddr = "10.96.0.1".parse().unwrap();
        let (a, b) = (
            ServiceName::new("default", "a"),
            ServiceName::new("default", "b"),
        );
        let refuses = Addresses::from([(at, FrontendFlags::REFUSES)]);
        let leaves = Addresses::from([(at, FrontendFlags::NONE)]);
        let mut holders = Holders::default();
        assert_eq!(holders.set(Some(&a), &refuses), [at]);
        assert_eq!(holders.flags(at), Some(FrontendFlags::REFUSES));
        assert_eq!(holders.new_of(&leaves, Family::V4), 0);
        holders.set(Some(&b), &leaves);
        assert_eq!(holders.flags(at), Some(FrontendFlags::NONE));
        assert!(holders.set(Some(&b), &leaves).is_empty(), "nothing changed");
        holders.set(Some(&b), &Addresses::new());
        assert_eq!(holders.flags(at), Some(FrontendFlags::REFUSES));
        holders.set(Some(&a), &Addresses::new());
        assert_eq!((holders.flags(at), holders.count(Family::V4)), (None, 0));
    }
}
