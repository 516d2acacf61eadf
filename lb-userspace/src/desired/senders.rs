//! How the maps tell pods of the cluster from other senders.
use ipnet::IpNet;
use lb_common::{Prefix, Senders};

use crate::{
    maps::MapFamily,
    model::{DetectLocal, Place},
};

/// What SENDERS says. Where devices tell pods from others (`--detect-local-mode` by bridge or name), nobody is a pod by
/// their address.
pub fn senders(place: &Place) -> Senders {
    let prefixes = match place.detect_local {
        DetectLocal::ClusterCidr => place.cluster_cidrs.as_slice(),
        DetectLocal::NodeCidr => place.pod_cidrs.as_slice(),
        DetectLocal::Bridge(_) | DetectLocal::InterfacePrefix(_) | DetectLocal::None => &[],
    };
    Senders {
        pods_v4: first(prefixes),
        pods_v6: first(prefixes),
    }
}

/// The first prefix of a family; without one, that of nobody.
fn first<F: MapFamily>(prefixes: &[IpNet]) -> Prefix<F> {
    let of_family = prefixes.iter().find_map(|prefix| {
        Some(Prefix {
            network: F::address(prefix.network())?,
            mask: F::address(prefix.netmask())?,
        })
    });
    of_family.unwrap_or(Prefix {
        network: F::UNSPECIFIED,
        mask: F::UNSPECIFIED,
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn pods_are_told_by_the_prefixes_of_the_mode() {
        let prefixes = |text: &str| -> Vec<IpNet> {
            text.split_whitespace()
                .map(|it| it.parse().unwrap())
                .collect()
        };
        let is_pod = |detect_local: DetectLocal, address: &str| {
            let place = Place {
                cluster_cidrs: prefixes("10.244.0.0/16 fd00:10:244::/48"),
                pod_cidrs: prefixes("10.244.1.0/24"),
                detect_local,
                ..Place::default()
            };
            let senders = senders(&place);
            match address.parse::<IpAddr>().unwrap() {
                IpAddr::V4(address) => senders.pods_v4.contains(&address.into()),
                IpAddr::V6(address) => senders.pods_v6.contains(&address.into()),
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
}
