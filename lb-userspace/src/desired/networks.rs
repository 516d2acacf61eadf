//! Which addresses are told by how they begin: those of pods, and those that Services get.
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lb_common::{FamilyNetworks, Networks, Prefix};

use crate::{
    desired::Ledger,
    maps::MapFamily,
    model::{DetectLocal, Family, Place},
};

/// What NETWORKS says. Where devices tell pods from others (`--detect-local-mode` by bridge or name), nobody is a pod by
/// their address.
pub fn networks(place: &Place, ledger: &Ledger) -> Networks {
    let pods = match place.detect_local {
        DetectLocal::ClusterCidr => place.cluster_cidrs.as_slice(),
        DetectLocal::NodeCidr => place.pod_cidrs.as_slice(),
        DetectLocal::Bridge(_) | DetectLocal::InterfacePrefix(_) | DetectLocal::None => &[],
    };
    let services = place.service_cidrs.as_slice();
    Networks {
        v6: of_family(pods, services, ledger.lowest_and_highest(Family::V6)),
        v4: of_family(pods, services, ledger.lowest_and_highest(Family::V4)),
    }
}

fn of_family<F: MapFamily>(
    pods: &[IpNet],
    services: &[IpNet],
    taken: Option<(IpAddr, IpAddr)>,
) -> FamilyNetworks<F> {
    let of_family = |prefixes: &[IpNet]| -> Vec<IpNet> {
        let of_family = prefixes.iter().copied();
        of_family
            .filter(|it| Family::of(it.addr()) == F::FAMILY)
            .collect()
    };
    let nobody = Prefix {
        network: F::UNSPECIFIED,
        mask: F::UNSPECIFIED,
    };
    let (pods, services) = (of_family(pods), of_family(services));
    let mut ends: Vec<IpAddr> = services
        .iter()
        .flat_map(|it| [it.network(), it.broadcast()])
        .collect();
    ends.extend(taken.into_iter().flat_map(|(low, high)| [low, high]));
    let around = ends.iter().min().zip(ends.iter().max());
    let mut service_prefixes = [nobody; _];
    let known = services.iter().filter_map(prefix);
    for (place, prefix) in service_prefixes.iter_mut().zip(known) {
        *place = prefix;
    }
    FamilyNetworks {
        pods: pods.first().and_then(prefix).unwrap_or(nobody),
        // No address is both anything and this one.
        around_services: around.map_or(
            Prefix {
                network: F::EVERY_BIT,
                mask: F::UNSPECIFIED,
            },
            |(low, high)| prefix(&around_both(*low, *high)).unwrap_or(nobody),
        ),
        service_prefixes,
    }
}

fn prefix<F: MapFamily>(prefix: &IpNet) -> Option<Prefix<F>> {
    Some(Prefix {
        network: F::address(prefix.network())?,
        mask: F::address(prefix.netmask())?,
    })
}

/// The longest prefix that two addresses of a family are within, and with them all between.
fn around_both(low: IpAddr, high: IpAddr) -> IpNet {
    let length = |differing: u32| u8::try_from(differing).unwrap_or_default();
    match (low, high) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            let equal = length((low.to_bits() ^ high.to_bits()).leading_zeros());
            Ipv4Net::new_assert(low, equal).trunc().into()
        }
        (IpAddr::V6(low), IpAddr::V6(high)) => {
            let equal = length((low.to_bits() ^ high.to_bits()).leading_zeros());
            Ipv6Net::new_assert(low, equal).trunc().into()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => IpNet::from(low),
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Ipv4Address, Ipv6Address, V4};

    use super::*;
    use crate::{desired::tests::ledger, maps::Capacities};

    fn prefixes(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|it| it.parse().unwrap())
            .collect()
    }

    #[test]
    fn pods_are_told_by_the_prefixes_of_the_mode() {
        let is_pod = |detect_local: DetectLocal, address: &str| {
            let place = Place {
                cluster_cidrs: prefixes("10.244.0.0/16 fd00:10:244::/48"),
                pod_cidrs: prefixes("10.244.1.0/24"),
                detect_local,
                ..Place::default()
            };
            let networks = networks(&place, &ledger(Capacities::DECLARED));
            match address.parse::<IpAddr>().unwrap() {
                IpAddr::V4(address) => networks.v4.pods.contains(&address.into()),
                IpAddr::V6(address) => networks.v6.pods.contains(&address.into()),
            }
        };
        assert!(is_pod(DetectLocal::ClusterCidr, "10.244.2.2"));
        assert!(is_pod(DetectLocal::ClusterCidr, "fd00:10:244:2::2"));
        assert!(!is_pod(DetectLocal::ClusterCidr, "10.245.0.1"));
        assert!(is_pod(DetectLocal::NodeCidr, "10.244.1.2"));
        assert!(!is_pod(DetectLocal::NodeCidr, "10.244.2.2"));
        assert!(!is_pod(DetectLocal::NodeCidr, "fd00:10:244:1::2"));
        assert!(!is_pod(
            DetectLocal::Bridge("cni0".to_owned()),
            "10.244.1.2"
        ));
        assert!(!is_pod(DetectLocal::None, "10.244.1.2"));
    }

    #[test]
    fn what_is_around_services_holds_their_prefixes_and_addresses_and_little_else() {
        let v4 = |text: &str| Ipv4Address::from(text.parse::<std::net::Ipv4Addr>().unwrap());
        let around = |services: &str, taken: Option<(&str, &str)>| {
            let taken = taken.map(|(low, high)| (low.parse().unwrap(), high.parse().unwrap()));
            of_family::<V4>(&[], &prefixes(services), taken).around_services
        };
        let taken = Some(("10.96.0.1", "10.97.3.2"));
        for (around, within, without) in [
            (around("", taken), "10.96.9.9 10.97.255.255", "10.98.0.0"),
            (
                around("10.96.0.0/12", taken),
                "10.111.255.255",
                "10.112.0.0",
            ),
            (
                around("10.96.0.0/12 fd00::/8", None),
                "10.96.0.0",
                "10.95.0.0",
            ),
            (
                around("", Some(("9.9.9.9", "192.0.2.1"))),
                "0.0.0.0 255.255.255.255",
                "",
            ),
        ] {
            for address in within.split_whitespace() {
                assert!(around.agrees(&v4(address)), "{address}: {around:?}");
            }
            for address in without.split_whitespace() {
                assert!(!around.agrees(&v4(address)), "{address}: {around:?}");
            }
        }
        let nothing = around("", None);
        assert!(!nothing.agrees(&v4("0.0.0.0")) && !nothing.agrees(&v4("255.255.255.255")));
        let v6 = of_family::<lb_common::V6>(&[], &prefixes("fd00:10:96::/112"), None);
        let address = |text: &str| Ipv6Address::from(text.parse::<std::net::Ipv6Addr>().unwrap());
        assert!(v6.around_services.agrees(&address("fd00:10:96::ffff")));
        assert!(!v6.around_services.agrees(&address("fd00:10:96::1:0")));
    }
}
