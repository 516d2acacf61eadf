use std::net::IpAddr;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn file(name: &str, text: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("waggle-config-{name}-{}", std::process::id()));
    std::fs::write(&file, text).unwrap();
    file
}

fn flags(flags: &[&str]) -> Settings {
    Line::try_parse_from([&["waggle"], flags].concat())
        .unwrap()
        .settings
}

#[test]
fn a_flag_beats_the_file_and_the_file_the_default() {
    let file = file(
        "beats",
        "nodeName: of-file\ngoneGrace: 7s\nregionRest: 3s\n",
    );
    let settings = flags(&["--node-name", "of-flag"]).or_file(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(settings.node.node_name(), "of-flag");
    let agent = settings.agent().unwrap();
    assert_eq!(agent.gone_grace, Duration::from_secs(7));
    assert_eq!(agent.region_rest, Duration::from_secs(3));
    assert_eq!(agent.collect, Duration::from_millis(5));
}

#[test]
fn a_key_that_does_not_exist_is_named() {
    let cases = [
        ("nodename: a\n", "nodename"),
        ("goneGrace: 30\n", "30"),
        ("goneGrace: soon\n", "soon"),
        (
            "manifests: /m\nkubeconfig: /k\n",
            "manifests excludes kubeconfig",
        ),
    ];
    for (text, named) in cases {
        let file = file("named", text);
        let error = Settings::default().or_file(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(format!("{error:#}").contains(named), "{error:#}");
    }
    let error = Settings::default()
        .or_file(Path::new("/nowhere/file"))
        .unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere/file"), "{error:#}");
}

/// The flags of flows' timeouts.
const TIMEOUTS: [&str; 5] = [
    "--conntrack-tcp-timeout-established",
    "--conntrack-tcp-timeout-close-wait",
    "--conntrack-tcp-timeout-closed",
    "--conntrack-udp-timeout-stream",
    "--conntrack-udp-timeout",
];

#[test]
fn a_time_that_would_do_harm_is_refused_on_the_command_line_and_in_the_file() {
    let longest = "to 2147483s";
    let timeouts = TIMEOUTS.into_iter().flat_map(|flag| {
        [
            (flag, "500ms", "1s to"),
            (flag, "1ms", "or 0s for the default"),
            (flag, "2147484s", longest),
            (flag, "597h", longest),
            (flag, "18446744073709551615ms", longest),
        ]
    });
    let periods = [
        ("--device-check-period", "0s", "100ms to"),
        ("--device-check-period", "99ms", "100ms to"),
        ("--device-check-period", "1000h", longest),
        ("--list-timeout", "0s", "100ms to"),
        ("--region-rest", "10ms", "1s to"),
        ("--manifest-settle", "0ms", "1ms to"),
        ("--backoff", "0ms", "1ms to"),
        ("--backoff-limit", "0ms", "1ms to"),
        ("--collect-changes", "600h", longest),
        ("--gone-grace", "600h", longest),
    ];
    for (flag, value, range) in timeouts.chain(periods) {
        let refused = Line::try_parse_from(["waggle", flag, value]);
        let error = refused.map(|line| line.settings).unwrap_err().to_string();
        for part in [flag, value, range] {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
        let key = camel(flag);
        let file = file("bounds", &format!("{key}: {value}\n"));
        let error = Settings::default().or_file(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        let error = format!("{error:#}");
        for part in [key.as_str(), value, range] {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
    }
}

#[test]
fn a_timeout_of_zero_is_the_default_and_no_timeout_is_zero() {
    let seconds = |value: &str| {
        let given = TIMEOUTS.iter().flat_map(|flag| [*flag, value]);
        let timeouts = flags(&given.collect::<Vec<_>>()).timeouts();
        [
            timeouts.tcp_established,
            timeouts.tcp_close_wait,
            timeouts.tcp_closed,
            timeouts.udp_stream,
            timeouts.udp,
        ]
    };
    let default = [86_400, 3_600, 120, 180, 30];
    for (value, expected) in [
        ("0s", default),
        ("0", default),
        ("0ms", default),
        ("1s", [1; 5]),
        ("1001ms", [2; 5]),
        ("2147483s", [2_147_483; 5]),
    ] {
        assert_eq!(seconds(value), expected, "{value}");
    }
    assert_eq!(Settings::default().timeouts(), Timeouts::DEFAULT);
    assert!(1000 * Timeouts::LONGEST <= i32::MAX.cast_unsigned());
}

#[test]
fn an_empty_file_sets_nothing() {
    let file = file("empty", "# all defaults\n");
    let settings = Settings::default().or_file(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn every_flag_is_a_key_of_the_same_name() {
    // A list that is empty is not written.
    let settings = flags(&[
        "--node-ip=192.0.2.1",
        "--cluster-cidr=10.244.0.0/16",
        "--service-cidr=10.96.0.0/16",
        "--nodeport-addresses=all",
    ]);
    let keys = serde_json::to_value(settings).unwrap();
    let command = <Line as clap::CommandFactory>::command();
    let flags: BTreeSet<String> = command
        .get_arguments()
        .map(|flag| flag.get_id().to_string())
        .collect();
    let keys: BTreeSet<String> = keys
        .as_object()
        .unwrap()
        .keys()
        .map(|key| snake(key))
        .collect();
    assert_eq!(flags, keys);
}

fn snake(key: &str) -> String {
    let mut snake = String::new();
    for character in key.chars() {
        if character.is_uppercase() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

/// `--node-name` as it is called in the file.
fn camel(flag: &str) -> String {
    let mut words = flag.trim_start_matches('-').split('-');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        camel.extend([&first.to_uppercase(), rest]);
    }
    camel
}

#[test]
fn addresses_of_the_node_come_from_the_file_unless_a_flag_names_some() {
    let file = std::env::temp_dir().join(format!("waggle-node-ip-{}", std::process::id()));
    std::fs::write(&file, "nodeIp: [192.0.2.1]\n").unwrap();
    let of_file = flags(&["--node-name", "a"]).or_file(&file).unwrap();
    assert_eq!(
        of_file.agent().unwrap().place.addresses,
        [IpAddr::from([192, 0, 2, 1])]
    );
    let of_flag = flags(&["--node-ip", "192.0.2.2"]).or_file(&file).unwrap();
    assert_eq!(
        of_flag.agent().unwrap().place.addresses,
        [IpAddr::from([192, 0, 2, 2])]
    );
    std::fs::write(&file, "maxFlowEntries: 0\n").unwrap();
    assert!(flags(&[]).or_file(&file).is_err(), "no flow has room");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn what_flags_say_of_the_node_a_file_says_as_well() {
    let file = file(
        "node",
        "clusterCidr: '10.244.0.0/16,fd00:10:244::/56'\nserviceCidr: [10.96.0.0/16]\nzone: a\nmasqueradeAll: true\n\
         nodeportAddresses: [localhost, 192.0.2.0/24]\ndetectLocalMode: interfacenameprefix\n\
         podInterfaceNamePrefix: cali\nignoreExternalIps: true\n",
    );
    let words = "--node-name a --zone a --cluster-cidr 10.244.0.0/16,fd00:10:244::/56 --service-cidr 10.96.0.0/16 \
                 --masquerade-all --nodeport-addresses localhost,192.0.2.0/24 --ignore-external-ips \
                 --detect-local-mode InterfaceNamePrefix --pod-interface-name-prefix cali";
    let words: Vec<&str> = words.split_whitespace().collect();
    let of_file = flags(&["--node-name", "a"]).or_file(&file).unwrap();
    assert_eq!(of_file, flags(&words));
    let switched_off = flags(&["--masquerade-all=false"]).or_file(&file).unwrap();
    assert!(!switched_off.node.place().unwrap().masquerade_all);
    for (text, named) in [
        ("zone: a\nnodeNam: b\n", "nodeNam"),
        ("clusterCidr: [10.244.0.0]\n", "10.244.0.0/16"),
        ("nodeportAddresses: here\n", "primary, localhost, all"),
        ("detectLocalMode: here\n", "ClusterCIDR, NodeCIDR"),
        ("masqueradeAll: sometimes\n", "sometimes"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = format!("{:#}", Settings::default().or_file(&file).unwrap_err());
        assert!(error.contains(named), "no `{named}` in: {error}");
    }
    std::fs::remove_file(file).unwrap();
}
