//! Clients inside the cluster and strangers: whose requests are masqueraded, and whose entry of a frontend counts.
use std::net::SocketAddr;

use lb_common::{DeviceFlags, FrontendEntry, FrontendFlags, FrontendKey, Port, Prefix, V4};
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{TCP, flag::SYN},
};

use crate::{
    fixture::{REQUEST, at},
    masquerade::{OUT, ends, lonely, packet, untouched},
    talk::{OTHER_WEB, frontend, pod},
};

/// What the frontend says beside its service.
fn flag_frontend(node: &mut HostDatapath, flags: FrontendFlags) -> FrontendKey<V4> {
    let SocketAddr::V4(at) = frontend() else {
        unreachable!("the frontend of these tests")
    };
    let key = FrontendKey::new((*at.ip()).into(), Port::new(at.port()), TCP);
    let entry = node.tables.v4.frontends.get_mut(&key);
    entry.expect("a frontend").flags = flags;
    key
}

/// Pods are those of 10.244.0.0/16; or whoever sends by device 1.
fn tell_pods(node: &mut HostDatapath, by_device: bool) {
    if by_device {
        let device = node.tables.devices.get_mut(&1).expect("a device");
        device.flags = DeviceFlags::PODS;
    } else {
        node.tables.networks.v4.pods = Prefix {
            network: [10, 244, 0, 0].into(),
            mask: [255, 255, 0, 0].into(),
        };
    }
}

#[test]
fn strangers_are_masqueraded_and_pods_are_not_if_the_frontend_says_so() {
    let stranger = at("192.0.2.9:2000");
    let pods_client = at("10.244.7.7:2000");
    for (pods, client, is_masqueraded) in [
        (None, stranger, true),
        (None, pods_client, true),
        (Some(false), stranger, true),
        (Some(false), pods_client, false),
        (Some(true), stranger, false),
    ] {
        let mut node = lonely();
        flag_frontend(&mut node, FrontendFlags::MASQUERADE_STRANGERS);
        if let Some(by_device) = pods {
            tell_pods(&mut node, by_device);
        }
        let (verdict, routed) = node.enter(&packet(TCP, client, frontend(), SYN));
        assert_eq!(verdict, REQUEST);
        let (verdict, _) = node.leave(&routed);
        assert_eq!(verdict == OUT, is_masqueraded, "{client}, pods {pods:?}");
    }
}

#[test]
fn clients_inside_are_served_by_their_own_entry_and_without_one_like_everybody() {
    let inside = at("10.244.7.7:2000");
    for (client, has_entry, backend) in [
        (at("192.0.2.9:2000"), true, pod(1)),
        (inside, true, pod(2)),
        (inside, false, pod(1)),
    ] {
        let mut node = lonely();
        tell_pods(&mut node, false);
        let key = flag_frontend(&mut node, FrontendFlags::INSIDE_ELSEWHERE);
        // The other frontend's service has another pod.
        node.candidates(OTHER_WEB, &[OTHER_WEB * 10 + 2]);
        if has_entry {
            let entry = FrontendEntry {
                service_id: OTHER_WEB,
                flags: FrontendFlags::NONE,
            };
            node.tables.v4.frontends.insert(key.inside(), entry);
        }
        let (_, routed) = node.enter(&packet(TCP, client, frontend(), SYN));
        assert_eq!(ends(&routed), (client, backend), "{client} {has_entry}");
    }
}

#[test]
fn a_frontend_for_processes_alone_is_no_frontend_for_packets() {
    let mut node = lonely();
    flag_frontend(&mut node, FrontendFlags::PROCESSES_ONLY);
    let bytes = packet(TCP, at("192.0.2.9:2000"), frontend(), SYN);
    assert_eq!(node.enter(&bytes), untouched(&bytes));
}

#[test]
fn an_entry_for_clients_inside_counts_only_where_the_frontend_says_so() {
    let mut node = lonely();
    tell_pods(&mut node, false);
    let key = flag_frontend(&mut node, FrontendFlags::NONE);
    node.candidates(OTHER_WEB, &[OTHER_WEB * 10 + 2]);
    let entry = FrontendEntry {
        service_id: OTHER_WEB,
        flags: FrontendFlags::NONE,
    };
    node.tables.v4.frontends.insert(key.inside(), entry);
    let client = at("10.244.7.7:2000");
    let (_, routed) = node.enter(&packet(TCP, client, frontend(), SYN));
    assert_eq!(ends(&routed), (client, pod(1)));
}

/// A frontend for everybody of the service `WEB`, and one for clients inside of `OTHER_WEB`, with these flags.
fn two_sided(everybody: FrontendFlags, inside: FrontendFlags) -> HostDatapath {
    let mut node = lonely();
    tell_pods(&mut node, false);
    let key = flag_frontend(&mut node, everybody.with(FrontendFlags::INSIDE_ELSEWHERE));
    let pods = [1, 2, 3].map(|pod| OTHER_WEB * 10 + pod);
    node.candidates(OTHER_WEB, &pods);
    node.choose_by(OTHER_WEB, lb_common::Algorithm::Random);
    let entry = FrontendEntry {
        service_id: OTHER_WEB,
        flags: inside,
    };
    node.tables.v4.frontends.insert(key.inside(), entry);
    node
}

#[test]
fn source_ranges_are_those_of_the_entry_that_the_client_is_served_by() {
    const RANGES: FrontendFlags = FrontendFlags::SOURCE_RANGES;
    const NONE: FrontendFlags = FrontendFlags::NONE;
    let client = at("10.244.7.7:2000");
    let its_range = "10.244.0.0/16".parse().expect("a prefix");
    for (everybody, inside, allowed_by, is_served) in [
        (RANGES, NONE, None, true),
        (NONE, RANGES, None, false),
        (RANGES, RANGES, Some(OTHER_WEB), true),
        (RANGES, RANGES, Some(crate::talk::WEB), false),
    ] {
        let mut node = two_sided(everybody, inside);
        node.tables.source_ranges = allowed_by.map(|id| (id, its_range)).into_iter().collect();
        let (verdict, _) = node.enter(&packet(TCP, client, frontend(), SYN));
        assert_eq!(verdict == REQUEST, is_served, "{everybody:?} {inside:?}");
    }
}

#[test]
fn a_client_inside_stays_with_a_backend_of_the_service_that_serves_it() {
    let mut node = two_sided(FrontendFlags::NONE, FrontendFlags::NONE);
    node.stay(OTHER_WEB, 600);
    let mut met = std::collections::BTreeSet::new();
    for port in 2000..2030 {
        let client = SocketAddr::new(at("10.244.7.7:0").ip(), port);
        let (verdict, routed) = node.enter(&packet(TCP, client, frontend(), SYN));
        assert_eq!(verdict, REQUEST);
        met.insert(ends(&routed).1);
    }
    assert_eq!(met.len(), 1, "{met:?}");
}
