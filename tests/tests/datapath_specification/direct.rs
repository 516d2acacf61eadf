//! Direct connections to a backend.
use std::net::SocketAddr;

use lb_common::{
    DeviceEntry, DeviceFlags, FrontendEntry, FrontendFlags, FrontendKey, PassReason, Port, Verdict,
};
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{
        SCTP, TCP, UDP,
        flag::{ACK, FIN, RST, SYN},
    },
    packets::packet_builder::eth,
};

use crate::{
    fixture::{REPLY, REQUEST},
    masquerade::{ends, packet, untouched},
    talk::{WEB, client, frontend, node, pod},
};

/// Pod 1 is the only backend, and direct connections to it are tracked.
fn tracking() -> HostDatapath {
    let mut node = node();
    node.candidates(WEB, &[11]);
    let SocketAddr::V4(at) = pod(1) else {
        unreachable!("pods have IPv4 addresses here")
    };
    for protocol in [TCP, UDP, SCTP] {
        let key = FrontendKey::new((*at.ip()).into(), Port::new(at.port()), protocol);
        let flags = FrontendFlags::DIRECT.with(FrontendFlags::DIRECT_FROM_OUTSIDE);
        let entry = FrontendEntry {
            service_id: 0,
            flags,
        };
        node.tables.v4.frontends.insert(key, entry);
    }
    node
}

fn direct(bytes: &[u8]) -> (Verdict, Vec<u8>) {
    (Verdict::Pass(PassReason::Direct), bytes.to_vec())
}

#[test]
fn the_later_one_of_a_direct_connection_and_a_services_gets_another_source_port() {
    for protocol in [TCP, UDP] {
        let to_pod = packet(protocol, client(1000), pod(1), SYN);
        let to_service = packet(protocol, client(1000), frontend(), SYN);
        let reply = packet(protocol, pod(1), client(1000), SYN | ACK);

        let mut node = tracking();
        assert_eq!(node.enter(&to_pod), direct(&to_pod));
        let (verdict, routed) = node.enter(&to_service);
        assert_eq!((verdict, ends(&routed).1), (REQUEST, pod(1)));
        let source = ends(&routed).0;
        assert_ne!(source, client(1000));
        assert_eq!(node.leave(&reply), direct(&reply));
        let (verdict, delivered) = node.leave(&packet(protocol, pod(1), source, SYN | ACK));
        assert_eq!(
            (verdict, ends(&delivered)),
            (REPLY, (frontend(), client(1000)))
        );

        let mut node = tracking();
        assert_eq!(ends(&node.enter(&to_service).1).0, client(1000));
        let (verdict, routed) = node.enter(&to_pod);
        let source = ends(&routed).0;
        assert_eq!((verdict, ends(&routed).1), (REQUEST, pod(1)));
        assert_ne!(source, client(1000));
        let (verdict, delivered) = node.leave(&packet(protocol, pod(1), source, SYN | ACK));
        assert_eq!((verdict, ends(&delivered)), (REPLY, (pod(1), client(1000))));
        assert_eq!(ends(&node.leave(&reply).1).0, frontend());
    }
}

#[test]
fn an_established_connection_keeps_its_port_and_one_that_ends_is_not_tracked() {
    let mut node = tracking();
    let established = packet(TCP, client(1000), pod(1), ACK);
    assert_eq!(node.enter(&established), direct(&established));
    for flags in [FIN | ACK, RST] {
        let ends = packet(TCP, client(1001), pod(1), flags);
        assert_eq!(node.enter(&ends), untouched(&ends));
    }
    // A Service's flow has the reply tuple already: another port would break the connection.
    let (_, _) = node.enter(&packet(TCP, client(1002), frontend(), SYN));
    let established = packet(TCP, client(1002), pod(1), ACK);
    assert_eq!(node.enter(&established), untouched(&established));
    assert_eq!(node.remembered(TCP, client(1002), pod(1)), None);
}

#[test]
fn fragments_of_sctp_packets_pass_on_a_direct_connection_that_keeps_its_port() {
    let mut node = tracking();
    let init = eth().between(SCTP, client(1000), pod(1)).flags(SYN).build();
    assert_eq!(node.enter(&init), direct(&init));
    let request = eth().between(SCTP, client(1000), pod(1));
    let request = request.fragment(0, true).build();
    assert_eq!(node.enter(&request), direct(&request));
    let reply = eth().between(SCTP, pod(1), client(1000));
    let reply = reply.fragment(0, true).build();
    assert_eq!(node.leave(&reply), direct(&reply));
}

#[test]
fn at_an_upper_device_no_direct_connection_is_tracked() {
    let mut node = tracking();
    let device = DeviceEntry {
        flags: DeviceFlags::UPPER,
        ..DeviceEntry::default()
    };
    node.tables.devices.insert(1, device);
    // It may be a Service's request, translated at the device below.
    let opens = packet(TCP, client(1000), pod(1), SYN);
    assert_eq!(node.enter(&opens), untouched(&opens));
    assert_eq!(node.remembered(TCP, client(1000), pod(1)), None);
    // With a flow that is tracked below the packet may be another flow's.
    node.tables.devices.clear();
    assert_eq!(node.enter(&opens), direct(&opens));
    node.tables.devices.insert(1, device);
    let before = node.remembered(TCP, client(1000), pod(1));
    let closes = packet(TCP, client(1000), pod(1), FIN | ACK);
    assert_eq!(node.enter(&closes), direct(&closes));
    assert_eq!(node.remembered(TCP, client(1000), pod(1)), before);
}
