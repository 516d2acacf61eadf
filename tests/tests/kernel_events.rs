//! What the kernel programs write into EVENTS is what happened to the packet.
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::RingBuf;
use bytemuck::Zeroable as _;
use lb_common::{
    Counter, DatapathConfig, Event, FrontendEntry, FrontendFlags, FrontendKey, Ipv4Address,
    Ipv6Address, Port, Prefix, V4, V6,
};
use tests::{
    machine::kernel_program::KernelProgram,
    oracle::memory_tables::{MemoryFamily, MemoryTables},
    packets::dissect::{TCP, UDP},
    packets::packet_builder::{PacketBuilder, eth},
    require_root,
};

const FRONTEND_V4: [u8; 4] = [10, 96, 0, 80];
const FRONTEND_V6: [u16; 8] = [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x80];
const CLIENT_V4: [u8; 4] = [10, 244, 1, 9];
const CLIENT_V6: [u16; 8] = [0xfd00, 0x10, 0x244, 0, 0, 0, 0, 9];

/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// A service without backends at port 80 of both frontends, TCP and UDP.
fn tables(config: &DatapathConfig) -> MemoryTables {
    let mut tables = MemoryTables {
        config: *config,
        ..MemoryTables::default()
    };
    let entry = FrontendEntry {
        service_id: 1,
        flags: FrontendFlags::NONE,
    };
    for protocol in [TCP, UDP] {
        let key = FrontendKey::<V4>::new(FRONTEND_V4.into(), Port::new(80), protocol);
        V4::own_mut(&mut tables).frontends.insert(key, entry);
        let address = std::net::Ipv6Addr::from(FRONTEND_V6).into();
        let key = FrontendKey::<V6>::new(address, Port::new(80), protocol);
        V6::own_mut(&mut tables).frontends.insert(key, entry);
    }
    tables
}

/// Everything in EVENTS.
fn events(kernel: &mut KernelProgram) -> Result<Vec<Event>> {
    let mut buffer: RingBuf<_> = kernel.map("EVENTS")?;
    let mut events = Vec::new();
    while let Some(record) = buffer.next() {
        events.push(
            bytemuck::try_pod_read_unaligned(&record)
                .ok()
                .context("another size")?,
        );
    }
    Ok(events)
}

fn v4() -> PacketBuilder {
    eth().ipv4(CLIENT_V4, FRONTEND_V4)
}
fn v6() -> PacketBuilder {
    eth().ipv6(CLIENT_V6, FRONTEND_V6)
}

#[test]
fn each_dropped_packet_leaves_an_event_that_describes_it() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let config = DatapathConfig {
        event_sample: 1,
        ..DatapathConfig::DEFAULT
    };
    let mut kernel = KernelProgram::load(lb_userspace::datapath::object(), &config)?;
    kernel.fill(&tables(&config))?;
    let cases = [
        (
            v4().tcp(4001, 80).syn(),
            4,
            TCP,
            4001,
            Counter::DropNoBackend,
        ),
        (v4().udp(4002, 80), 4, UDP, 4002, Counter::DropNoBackend),
        (
            v6().tcp(4003, 80).syn(),
            6,
            TCP,
            4003,
            Counter::DropNoBackend,
        ),
        (v6().udp(4004, 80), 6, UDP, 4004, Counter::DropNoBackend),
        (v4().tcp(4005, 80), 4, TCP, 4005, Counter::DropNoFlow),
    ];
    for (packet, version, protocol, source_port, counter) in cases {
        let ran = kernel.run("tc_ingress_ethernet", &packet.build(), 1)?;
        assert_eq!(ran.action, DROP, "{source_port}");
        let found = events(&mut kernel)?;
        let [event] = found.as_slice() else {
            anyhow::bail!("{} events of one packet", found.len());
        };
        let (source, destination) = if version == 4 {
            (first(CLIENT_V4.into()), first(FRONTEND_V4.into()))
        } else {
            let words = |address| Ipv6Address::from(std::net::Ipv6Addr::from(address)).0;
            (words(CLIENT_V6), words(FRONTEND_V6))
        };
        let expected = Event {
            source,
            destination,
            source_port: Port::new(source_port),
            destination_port: Port::new(80),
            version,
            protocol,
            spare: 0,
            counter: counter as u32,
            interface: event.interface,
        };
        assert_eq!(*event, expected);
        // BPF_PROG_TEST_RUN lets packets come in by lo.
        assert_eq!(event.interface, 1);
    }
    Ok(())
}

#[test]
fn a_later_fragment_has_no_ports_though_the_packet_before_it_had_some() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let config = DatapathConfig {
        event_sample: 1,
        ..DatapathConfig::DEFAULT
    };
    let mut tables = tables(&config);
    // The addresses are a Service's, whatever the port. With no bits that count, all addresses may be.
    tables.networks.v4.around_services = Prefix::zeroed();
    tables.networks.v6.around_services = Prefix::zeroed();
    let entry = FrontendEntry {
        service_id: 0,
        flags: FrontendFlags::REFUSES,
    };
    let key = FrontendKey::<V4>::any_port(FRONTEND_V4.into());
    V4::own_mut(&mut tables).frontends.insert(key, entry);
    let key = FrontendKey::<V6>::any_port(std::net::Ipv6Addr::from(FRONTEND_V6).into());
    V6::own_mut(&mut tables).frontends.insert(key, entry);
    let mut kernel = KernelProgram::load(lb_userspace::datapath::object(), &config)?;
    kernel.fill(&tables)?;
    let later = [
        v4().other(UDP).fragment(8, true).payload(&[0x5a; 64]),
        v6().other(UDP)
            .fragment_extension(8, true)
            .payload(&[0x5a; 64]),
    ];
    for (whole, later) in [v4(), v6()].into_iter().zip(later) {
        for packet in [whole.tcp(4001, 80).syn(), later] {
            let ran = kernel.run("tc_ingress_ethernet", &packet.build(), 1)?;
            assert_eq!(ran.action, DROP);
        }
        let found = events(&mut kernel)?;
        let told = found.iter().map(|event| {
            let ports = (event.source_port.number(), event.destination_port.number());
            (event.counter, event.protocol, ports)
        });
        let expected = [
            (Counter::DropNoBackend as u32, TCP, (4001, 80)),
            (Counter::DropEarlyFragment as u32, UDP, (0, 0)),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
    Ok(())
}

#[test]
fn of_many_drops_on_a_cpu_one_in_a_sample_leaves_an_event() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let config = DatapathConfig {
        event_sample: 64,
        ..DatapathConfig::DEFAULT
    };
    let mut kernel = KernelProgram::load(lb_userspace::datapath::object(), &config)?;
    kernel.fill(&tables(&config))?;
    kernel.run("tc_ingress_ethernet", &v4().udp(4002, 80).build(), 256)?;
    assert_eq!(kernel.counted(Counter::DropNoBackend)?, 256);
    let count = events(&mut kernel)?.len();
    // Should the run move to another CPU, that one's first drop is shown as well; and of each second the first.
    let cpus = std::thread::available_parallelism()?.get();
    assert!((4..=4 + 2 * cpus).contains(&count), "{count} events");
    // A single drop, somewhat later, is none of 64, but seen.
    std::thread::sleep(Duration::from_millis(1100));
    kernel.run("tc_ingress_ethernet", &v4().udp(4003, 80).build(), 1)?;
    let found = events(&mut kernel)?;
    let ports: Vec<_> = found.iter().map(|event| event.source_port).collect();
    assert_eq!(ports, [Port::new(4003)]);
    Ok(())
}

fn first(address: Ipv4Address) -> [u32; 4] {
    [address.0[0], 0, 0, 0]
}
