use clap::Parser;

use NodePortAddresses::{All, Localhost, Primary, Within};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    node: NodeOptions,
}

fn flags(words: &str) -> Result<NodeOptions, String> {
    let words = ["waggle"].into_iter().chain(words.split_whitespace());
    let line = Line::try_parse_from(words);
    line.map(|line| line.node)
        .map_err(|error| error.to_string())
}

fn place(words: &str) -> Place {
    flags(words).unwrap().place().unwrap()
}

fn prefixes(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|it| it.parse().unwrap()).collect()
}

#[test]
fn lists_are_repeated_or_separated_by_commas() {
    for words in [
        "--cluster-cidr 10.244.0.0/16,fd00:10:244::/56 --service-cidr 10.96.0.0/16 --service-cidr fd00:10:96::/112",
        "--cluster-cidr 10.244.7.7/16 --cluster-cidr fd00:10:244::/56 --service-cidr 10.96.0.0/16,fd00:10:96::/112",
    ] {
        let place = place(words);
        assert_eq!(
            place.cluster_cidrs,
            prefixes(&["10.244.0.0/16", "fd00:10:244::/56"])
        );
        assert_eq!(
            place.service_cidrs,
            prefixes(&["10.96.0.0/16", "fd00:10:96::/112"])
        );
    }
    for words in [
        "--nodeport-addresses primary,localhost,all,192.0.2.0/24",
        "--nodeport-addresses primary,localhost --nodeport-addresses all,192.0.2.0/24",
    ] {
        let within = Within("192.0.2.0/24".parse().unwrap());
        assert_eq!(
            place(words).nodeport_addresses,
            [Primary, Localhost, All, within]
        );
    }
}

#[test]
fn modes_are_taken_in_any_case_with_what_they_need() {
    for (words, expected) in [
        ("", DetectLocal::ClusterCidr),
        ("--detect-local-mode clustercidr", DetectLocal::ClusterCidr),
        ("--detect-local-mode NodeCIDR", DetectLocal::NodeCidr),
        ("--detect-local-mode none", DetectLocal::None),
        (
            "--detect-local-mode BridgeInterface --pod-bridge-interface cni0",
            DetectLocal::Bridge("cni0".to_owned()),
        ),
        (
            "--detect-local-mode INTERFACENAMEPREFIX --pod-interface-name-prefix cali",
            DetectLocal::InterfacePrefix("cali".to_owned()),
        ),
    ] {
        assert_eq!(place(words).detect_local, expected, "{words}");
    }
}

#[test]
fn what_is_refused_says_what_is_accepted() {
    for (words, parts) in [
        ("--node-ip here", &["--node-ip", "here", "192.0.2.1"][..]),
        (
            "--cluster-cidr 10.244.0.0",
            &["--cluster-cidr", "10.244.0.0/16"],
        ),
        (
            "--service-cidr 10.96.0.0/33",
            &["--service-cidr", "10.96.0.0/33"],
        ),
        (
            "--nodeport-addresses here",
            &["primary, localhost, all", "prefix"],
        ),
        (
            "--detect-local-mode x",
            &["ClusterCIDR", "NodeCIDR", "BridgeInterface"],
        ),
        ("--masquerade-all=x", &["--masquerade-all", "true, false"]),
    ] {
        let error = flags(words).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
    }
    for (words, part) in [
        (
            "--cluster-cidr 10.0.0.0/16,10.1.0.0/16",
            "one of each family",
        ),
        (
            "--detect-local-mode BridgeInterface",
            "--pod-bridge-interface",
        ),
        (
            "--detect-local-mode InterfaceNamePrefix",
            "--pod-interface-name-prefix",
        ),
    ] {
        let error = flags(words).unwrap().place().unwrap_err().to_string();
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

#[test]
fn a_switch_is_on_when_it_is_named_and_can_be_said_to_be_off() {
    for (words, expected) in [
        ("", false),
        ("--masquerade-all --ignore-external-ips", true),
        ("--masquerade-all=true --ignore-external-ips=true", true),
        ("--masquerade-all=false --ignore-external-ips=false", false),
    ] {
        let place = place(words);
        assert_eq!(
            [place.masquerade_all, place.ignore_external_ips],
            [expected; 2],
            "{words}"
        );
    }
}

#[test]
fn prefixes_of_services_and_of_pods_may_not_overlap() {
    for (words, is_right) in [
        (
            "--cluster-cidr 10.244.0.0/16 --service-cidr 10.0.0.0/8",
            false,
        ),
        (
            "--cluster-cidr 10.0.0.0/8 --service-cidr 10.96.0.0/16",
            false,
        ),
        (
            "--cluster-cidr fd00:10::/32 --service-cidr fd00:10:96::/112",
            false,
        ),
        (
            "--cluster-cidr 10.244.0.0/16 --service-cidr 10.96.0.0/16,fd00:10:96::/112",
            true,
        ),
    ] {
        let place = flags(words).unwrap().place();
        assert_eq!(place.is_ok(), is_right, "{words}: {place:?}");
    }
}

#[test]
fn addresses_that_nobody_reaches_are_no_nodes() {
    for (address, is_right) in [
        ("0.0.0.0", false),
        ("::", false),
        ("224.0.0.1", false),
        ("127.0.0.1", false),
        ("192.0.2.1", true),
        ("fd00::1", true),
    ] {
        let place = flags(&format!("--node-ip {address}")).unwrap().place();
        assert_eq!(place.is_ok(), is_right, "{address}");
    }
}
