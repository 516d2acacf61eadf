//! A flood of SYNs and blind acknowledgements, of four times the entries that `OPENING_FLOWS` has room for, evicts its own kind
//! only: an established flow goes on during and after it, and a client can still connect.
use anyhow::{Result, ensure};
use lb_common::{BackendState, Counter, DatapathConfig, V4};
use tests::{
    dissect::{
        TCP,
        flag::{ACK, SYN},
    },
    host_datapath::HostDatapath,
    kernel_program::KernelProgram,
    packet_builder::eth,
    require_root,
};

/// Twice as many clients as `OPENING_FLOWS` has entries; each flow takes two.
const CLIENTS: u32 = 262_144;
const ENTER: &str = "tc_ingress_ethernet";
const LEAVE: &str = "tc_egress_ethernet";
/// `TC_ACT_UNSPEC`: translated, or not ours.
const GO_ON: i32 = -1;

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

#[test]
fn a_flood_evicts_no_established_flow_and_clients_still_connect() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut node = HostDatapath::default();
    node.frontend(1, TCP, ([10, 96, 0, 1], 80).into());
    let pod = ([10, 244, 0, 1], 8080).into();
    node.backend(1, 1, pod, BackendState::Active);
    node.candidates(1, &[1]);
    let mut kernel =
        KernelProgram::load(lb_userspace::datapath::object()?, &DatapathConfig::DEFAULT)?;
    kernel.fill(&node.tables)?;
    for port in 2000..2100 {
        connect(&mut kernel, port)?;
    }
    let proven = kernel.flows::<V4>("FLOWS_V4")?.len();
    assert_eq!(proven, 200, "two entries a flow");

    let [mut syn, _, mut blind] = handshake(1);
    for number in 0..CLIENTS {
        // Behind Ethernet and twelve bytes of IPv4; the checksums are the receiver's affair.
        let client = (0x0b00_0000 + number).to_be_bytes();
        for frame in [&mut syn, &mut blind] {
            frame[26..30].copy_from_slice(&client);
            kernel.run(ENTER, frame, 1)?;
        }
        if number % 8192 == 0 {
            let port = 2000 + u16::try_from(number / 8192)?;
            passes(&mut kernel, ENTER, &handshake(port)[2])?;
            connect(&mut kernel, 3000 + port)?;
        }
    }
    for port in 2000..2100 {
        let [_, reply, request] = handshake(port);
        passes(&mut kernel, ENTER, &request)?;
        passes(&mut kernel, LEAVE, &reply)?;
    }
    let connected = usize::try_from(CLIENTS / 8192)?;
    let left = kernel.flows::<V4>("FLOWS_V4")?.len();
    assert_eq!(left, proven + 2 * connected, "nothing else was proven");
    let opened = kernel.counted(Counter::FlowsOpened)?;
    assert!(opened >= u64::from(CLIENTS), "{opened} flows were opened");
    let opening = kernel.flows::<V4>("OPENING_FLOWS_V4")?.len();
    assert!(
        opening <= 131_072 && opening > 65_536,
        "{opening} entries of opening flows"
    );
    Ok(())
}
