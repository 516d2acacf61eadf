//! `ServiceCIDR`.
use crate::{
    convert::{Notes, address::prefix},
    model::{ServiceCidr, printable},
    objects,
};

/// A `ServiceCIDR` as the agent sees it. What is no prefix is left out.
pub fn service_cidr(object: &objects::ServiceCidr) -> ServiceCidr {
    let name = object.metadata.name.clone().unwrap_or_default();
    // It belongs to the cluster, to no namespace.
    let mut notes = Notes::of(format!("ServiceCIDR {}", printable(&name)));
    let mut prefixes = Vec::new();
    for text in &object.spec.cidrs {
        match prefix(text) {
            Some(prefix) if prefix.prefix_len() > 0 => prefixes.push(prefix),
            Some(_) => notes.add(
                format!("`{text}` among its cidrs is every address there is; it is left out"),
                "write the prefix that clusterIPs are allocated from",
            ),
            None => notes.add(
                format!("`{text}` among its cidrs is no prefix; it is left out"),
                "write one as 10.96.0.0/16 or fd00:10:96::/112",
            ),
        }
    }
    ServiceCidr {
        name,
        prefixes,
        warnings: notes.finish(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_prefix_is_left_out_and_told() {
        let object = json!({
            "metadata": {"name": "more"},
            "spec": {"cidrs": ["010.200.7.7/16", "fd00:10:200::/112", "10.200.0.0/33", "more", "::/0"]},
        });
        let cidr = service_cidr(&serde_json::from_value(object).unwrap());
        assert_eq!(cidr.name, "more");
        let taken = ["10.200.0.0/16", "fd00:10:200::/112"];
        assert_eq!(cidr.prefixes, taken.map(|it| it.parse().unwrap()));
        let told: Vec<_> = cidr.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        let expected = [
            ("10.200.0.0/33", "no prefix"),
            ("more", "no prefix"),
            ("::/0", "every address there is"),
        ];
        for (told, (text, what)) in told.iter().zip(expected) {
            let begin =
                format!("ServiceCIDR more: `{text}` among its cidrs is {what}; it is left out");
            assert!(told.starts_with(&begin), "{told}");
        }
        let empty = service_cidr(&objects::ServiceCidr::default());
        assert_eq!((empty.prefixes, empty.warnings), (vec![], vec![]));
    }
}
