//! Where Services get their addresses from: flags and `ServiceCIDR` objects say so together.
use std::collections::BTreeMap;

use ipnet::IpNet;
use lb_common::networks::SERVICE_PREFIXES;

use crate::model::{Family, Warning};

/// A `ServiceCIDR` (KEP-1880). As for kube-proxy it counts as long as it is there, whatever its conditions say: while one
/// is being deleted, Services may have addresses of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// Its name.
    pub name: String,
    /// Its prefixes, without bits beyond their lengths.
    pub prefixes: Vec<IpNet>,
    /// What of it could not be taken.
    pub warnings: Vec<Warning>,
}

/// All `ServiceCIDR`s by name.
pub(super) type ServiceCidrs = BTreeMap<String, ServiceCidr>;

/// The prefixes of flags and objects together, as few as say the same, and no more of a family than the maps hold. Those
/// of flags come first, then large ones, then low ones: whoever looks at the same objects leaves out the same.
pub(super) fn union(configured: &[IpNet], objects: &ServiceCidrs) -> Vec<IpNet> {
    let written = objects.values().flat_map(|it| &it.prefixes);
    let mut all = IpNet::aggregate(&configured.iter().chain(written).copied().collect());
    all.sort_by_key(|prefix| {
        let is_configured = configured.iter().any(|it| prefix.contains(it));
        (!is_configured, prefix.prefix_len(), *prefix)
    });
    let of_family = |family: Family| {
        let of_family = all.iter().copied();
        let of_family = of_family.filter(move |it| Family::of(it.addr()) == family);
        of_family.take(SERVICE_PREFIXES)
    };
    Family::ALL.into_iter().flat_map(of_family).collect()
}

/// What there is to say of the objects, if these are the prefixes that count.
pub(super) fn warnings(objects: &ServiceCidrs, counting: &[IpNet]) -> Vec<Warning> {
    let of_object = |object: &ServiceCidr| {
        let mut left_out = object.prefixes.clone();
        left_out.retain(|prefix| !counting.iter().any(|it| it.contains(prefix)));
        let left_out = left_out.into_iter().map(|prefix| {
            let family = Family::of(prefix.addr());
            Warning::new(
                format!("ServiceCIDR {}", object.name),
                format!(
                    "{prefix} is left out, for there is room for {SERVICE_PREFIXES} {family} prefixes: what is for an \
                     address of it that no Service has is not dropped"
                ),
                "name one prefix that holds several by --service-cidr",
            )
        });
        let all: Vec<Warning> = object.warnings.iter().cloned().chain(left_out).collect();
        all
    };
    objects.values().flat_map(of_object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(text: &str) -> Vec<IpNet> {
        let words = text.split_whitespace();
        words.map(|it| it.parse().unwrap()).collect()
    }

    fn objects(texts: &[&str]) -> ServiceCidrs {
        let object = |(number, text): (usize, &&str)| ServiceCidr {
            name: format!("cidr-{number}"),
            prefixes: prefixes(text),
            warnings: Vec::new(),
        };
        let objects = texts.iter().enumerate().map(object);
        objects.map(|it| (it.name.clone(), it)).collect()
    }

    #[test]
    fn prefixes_of_flags_and_objects_count_together_each_once() {
        for (configured, written, expected) in [
            ("", &[][..], ""),
            ("10.96.0.0/16", &[], "10.96.0.0/16"),
            (
                "",
                &["10.96.0.0/16 fd00:10:96::/112"],
                "10.96.0.0/16 fd00:10:96::/112",
            ),
            ("10.96.0.0/16", &["10.96.0.0/16"], "10.96.0.0/16"),
            (
                "10.96.0.0/16",
                &["10.96.7.0/24", "10.0.0.0/8"],
                "10.0.0.0/8",
            ),
            ("10.96.0.0/17", &["10.96.128.0/17"], "10.96.0.0/16"),
            (
                "10.96.0.0/16",
                &["10.200.0.0/24", "10.200.0.0/24"],
                "10.96.0.0/16 10.200.0.0/24",
            ),
        ] {
            let union = union(&prefixes(configured), &objects(written));
            assert_eq!(union, prefixes(expected), "{configured} and {written:?}");
            assert_eq!(
                warnings(&objects(written), &union),
                [],
                "{configured} and {written:?}"
            );
        }
    }

    #[test]
    fn what_finds_no_room_is_left_out_and_named_and_flags_come_first() {
        let written = objects(&[
            "10.1.0.0/24 fd00:1::/112",
            "10.5.0.0/16",
            "10.3.0.0/24",
            "10.7.0.0/24",
            "10.9.0.0/24",
        ]);
        let counting = union(&prefixes("10.99.0.0/28"), &written);
        let expected = "10.99.0.0/28 10.5.0.0/16 10.1.0.0/24 10.3.0.0/24 fd00:1::/112";
        assert_eq!(counting, prefixes(expected));
        let told = warnings(&written, &counting);
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        let [first, second] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert!(
            first.starts_with("ServiceCIDR cidr-3: 10.7.0.0/24 is left out"),
            "{first}"
        );
        assert!(
            second.starts_with("ServiceCIDR cidr-4: 10.9.0.0/24 is left out"),
            "{second}"
        );
        // As the remedy says.
        let counting = union(&prefixes("10.99.0.0/28 10.0.0.0/12"), &written);
        assert_eq!(warnings(&written, &counting), []);
    }
}
