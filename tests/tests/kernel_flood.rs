//! A flood of SYNs and blind acknowledgements evicts its own kind only: an established flow goes on during and after it, and
//! a client can still connect, though not every one finds room among the established if these have none left.
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lb_common::{BackendState, Counter, DatapathConfig, V4, V6};
use tests::{
    machine::kernel_program::KernelProgram,
    oracle::host_datapath::HostDatapath,
    packets::dissect::{
        TCP, UDP,
        flag::{ACK, SYN},
    },
    packets::packet_builder::eth,
    require_root,
};

/// The flood's; `OPENING_FLOWS` has room for 65,536 flows.
const CLIENTS: u32 = 10_000_000;
/// It is looked at what has become of the others so often.
const WAVES: u16 = 20;
const ENTER: &str = "tc_ingress_ethernet";
const LEAVE: &str = "tc_egress_ethernet";
/// `TC_ACT_UNSPEC`: translated, or not ours.
const GO_ON: i32 = -1;
/// `TC_ACT_SHOT`.
const DROPPED: i32 = 2;

/// A packet passes, translated.
fn passes(kernel: &mut KernelProgram, hook: &str, bytes: &[u8]) -> Result<()> {
    let ran = kernel.run(hook, bytes, 1)?;
    ensure!(ran.action == GO_ON && ran.bytes != bytes, "{hook}: {ran:?}");
    Ok(())
}

/// A client of this port shakes hands with the pod.
fn connect(kernel: &mut KernelProgram, port: u16) -> Result<()> {
    let [syn, syn_ack, ack] = handshake(port);
    passes(kernel, ENTER, &syn)?;
    passes(kernel, LEAVE, &syn_ack)?;
    passes(kernel, ENTER, &ack)
}

fn handshake(port: u16) -> [Vec<u8>; 3] {
    let client = ([10, 7, 0, 9], port).into();
    let (frontend, pod) = (([10, 96, 0, 1], 80).into(), ([10, 244, 0, 1], 8080).into());
    let request = || eth().between(TCP, client, frontend);
    let reply = eth().between(TCP, pod, client);
    [
        request().flags(SYN).build(),
        reply.flags(SYN | ACK).sequence(900).build(),
        request().flags(ACK).acknowledge(901).build(),
    ]
}

/// The service at 10.96.0.1 and its pod, with room for so many entries in `FLOWS`; `None`: as the product has it.
fn service(room: Option<u32>) -> Result<KernelProgram> {
    let mut node = HostDatapath::default();
    let v6 = |last: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 8080));
    let v4 = ([10, 96, 0, 1], 80).into();
    for (id, protocol, at, pod) in [
        (1, TCP, v4, ([10, 244, 0, 1], 8080).into()),
        (2, UDP, v4, ([10, 244, 0, 1], 8080).into()),
        (3, UDP, v6(1), v6(2)),
    ] {
        node.frontend(id, protocol, at);
        node.backend(id, id, pod, BackendState::Active);
        node.candidates(id, &[id]);
    }
    let rooms: Vec<_> = room.into_iter().map(|room| ("FLOWS_V4", room)).collect();
    let object = lb_userspace::datapath::object();
    let mut kernel = KernelProgram::load_over(object, &DatapathConfig::DEFAULT, &rooms)?;
    kernel.fill(&node.tables)?;
    Ok(kernel)
}

/// The next clients of a flood, so many.
fn wave(flood: &mut KernelProgram, clients: u32) -> Result<()> {
    let [syn, ..] = handshake(1);
    let ran = flood.run("flood_v4", &syn, 2 * clients)?;
    // The last acknowledges what it cannot know: it goes on to the pod, and proves nothing.
    ensure!(ran.action == GO_ON, "{ran:?}");
    Ok(())
}

#[test]
fn a_flood_of_ten_million_clients_evicts_no_established_flow_and_clients_still_connect()
-> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut kernel = service(None)?;
    for port in 2000..2100 {
        connect(&mut kernel, port)?;
    }
    let proven = kernel.flows::<V4>("FLOWS_V4")?.len();
    assert_eq!(proven, 200, "two entries a flow");
    let [syn, ..] = handshake(1);
    let mut flood = kernel.wrapped(ENTER, &syn)?;
    for number in 0..WAVES {
        wave(&mut flood, CLIENTS / u32::from(WAVES))?;
        let [_, reply, request] = handshake(2000 + number);
        passes(&mut kernel, ENTER, &request)?;
        passes(&mut kernel, LEAVE, &reply)?;
        connect(&mut kernel, 5000 + number)?;
    }
    for port in (2000..2100).chain(5000..5000 + WAVES) {
        let [_, reply, request] = handshake(port);
        passes(&mut kernel, ENTER, &request)?;
        passes(&mut kernel, LEAVE, &reply)?;
    }
    let left = kernel.flows::<V4>("FLOWS_V4")?.len();
    assert_eq!(
        left,
        proven + 2 * usize::from(WAVES),
        "nothing else was proven"
    );
    let opened = kernel.counted(Counter::FlowsOpened)?;
    assert_eq!(opened, 100 + u64::from(CLIENTS) + u64::from(WAVES));
    let opening = kernel.flows::<V4>("OPENING_FLOWS_V4")?.len();
    assert!(
        opening <= 131_072 && opening > 65_536,
        "{opening} entries of opening flows"
    );
    Ok(())
}

#[test]
fn where_no_room_is_left_among_the_established_that_is_counted_and_they_outlast_a_flood()
-> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut kernel = service(Some(200))?;
    for port in 2000..2100 {
        connect(&mut kernel, port)?;
    }
    assert_eq!(kernel.counted(Counter::FlowsTableFull)?, 0);
    let [syn, ..] = handshake(1);
    let mut flood = kernel.wrapped(ENTER, &syn)?;
    for number in 0..WAVES {
        // It works, but has no room to stay for good.
        connect(&mut kernel, 5000 + number)?;
        let [_, reply, request] = handshake(5000 + number);
        passes(&mut kernel, ENTER, &request)?;
        passes(&mut kernel, LEAVE, &reply)?;
        wave(&mut flood, 10_000)?;
    }
    let crowded = kernel.counted(Counter::FlowsTableFull)?;
    assert_eq!(crowded, u64::from(WAVES));
    for port in 2000..2100 {
        let [_, reply, request] = handshake(port);
        passes(&mut kernel, ENTER, &request)?;
        passes(&mut kernel, LEAVE, &reply)?;
    }
    assert_eq!(kernel.flows::<V4>("FLOWS_V4")?.len(), 200);
    // Among opening flows nothing tells them from the flood: the last comer is still there, the first is not.
    let [_, _, request] = handshake(5000 + WAVES - 1);
    passes(&mut kernel, ENTER, &request)?;
    let [_, _, request] = handshake(5000);
    let ran = kernel.run(ENTER, &request, 1)?;
    assert_eq!((ran.action, ran.bytes), (DROPPED, request));
    assert_eq!(kernel.counted(Counter::DropNoFlow)?, 1);
    Ok(())
}

/// A UDP client that gets an answer and goes on, which proves its flow if there is room.
fn converse(kernel: &mut KernelProgram, client: SocketAddr) -> Result<()> {
    let (frontend, pod): (SocketAddr, SocketAddr) = match client {
        SocketAddr::V4(_) => (([10, 96, 0, 1], 80).into(), ([10, 244, 0, 1], 8080).into()),
        SocketAddr::V6(_) => (
            ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 8080).into(),
            ([0xfd00, 0, 0, 0, 0, 0, 0, 2], 8080).into(),
        ),
    };
    let request = eth().between(UDP, client, frontend).build();
    passes(kernel, ENTER, &request)?;
    passes(kernel, LEAVE, &eth().between(UDP, pod, client).build())?;
    passes(kernel, ENTER, &request)
}

#[test]
fn a_hundred_thousand_forged_udp_clients_take_half_of_flows_at_most_and_connections_find_room()
-> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut kernel = service(None)?;
    for port in 2000..2100 {
        connect(&mut kernel, port)?;
    }
    for number in 0..100_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        converse(&mut kernel, ([11, a, b, c], 1000).into())?;
        if number % 5000 == 0 {
            let [_, reply, request] = handshake(2000 + u16::try_from(number / 5000)?);
            passes(&mut kernel, ENTER, &request)?;
            passes(&mut kernel, LEAVE, &reply)?;
        }
    }
    let flows = kernel.flows::<V4>("FLOWS_V4")?;
    let of_udp = flows.keys().filter(|key| key.protocol_number() == UDP);
    let (of_udp, most) = (of_udp.count(), DatapathConfig::DEFAULT.udp_flow_entries);
    assert_eq!(of_udp, most as usize, "entries of UDP");
    assert_eq!(flows.len() - of_udp, 200, "entries of connections");
    assert_eq!(kernel.counted(Counter::FlowsTableFull)?, 0);
    for port in 5000..5100 {
        connect(&mut kernel, port)?;
    }
    for port in (2000..2100).chain(5000..5100) {
        let [_, reply, request] = handshake(port);
        passes(&mut kernel, ENTER, &request)?;
        passes(&mut kernel, LEAVE, &reply)?;
    }
    let left = kernel.flows::<V4>("FLOWS_V4")?.len();
    assert_eq!(left, of_udp + 400, "each connection has its room");
    Ok(())
}

#[test]
fn a_hundred_thousand_addresses_of_one_ipv6_network_are_one_client() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut kernel = service(None)?;
    for number in 0..100_000_u32 {
        let [high, low] = [number >> 16, number & 0xffff].map(u16::try_from);
        let address = [0x2001, 0xdb8, 0, 7, 1, 2, high?, low?];
        converse(&mut kernel, (address, 1000).into())?;
    }
    let flows = kernel.flows::<V6>("FLOWS_V6")?.len();
    let most = 2 * DatapathConfig::DEFAULT.udp_flows_per_client;
    assert_eq!(flows, most as usize);
    Ok(())
}
