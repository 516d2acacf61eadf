//! The sweep in the kernel: silent flows go, both halves together, and all others stay.
use anyhow::Result;
use aya::maps::Array;
use bytemuck::{Pod, Zeroable as _};
use lb_common::{
    Counter, DatapathConfig, FlowEntry, FlowFlags, FlowMarks, FlowSide, IpFamily, Port, Tuple, V4,
    V6, config::Timeouts,
};
use lb_userspace::maps::bpf::Plain;
use tests::{
    machine::kernel_program::KernelProgram,
    oracle::memory_tables::MemoryFamily,
    packets::dissect::{TCP, UDP},
    packets::packet_builder::eth,
    require_root,
};

const TIMEOUTS: Timeouts = Timeouts {
    tcp_established: 1000,
    tcp_close_wait: 100,
    tcp_closed: 10,
    udp_stream: 50,
    udp: 20,
};

/// One half: what was seen on it, and how many seconds ago.
type Half = (FlowFlags, u32);

#[test]
fn silent_flows_age_away_whole_and_busy_ones_stay() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    age::<V4>("age_flows_v4", "FLOWS_V4", |last| [10, 0, 0, last].into())?;
    age::<V6>("age_flows_v6", "FLOWS_V6", |last| {
        let mut bytes = [0xfd; 16];
        bytes[15] = last;
        bytes.into()
    })
}

/// Plays all cases with one family's program, over its own table.
fn age<F: MemoryFamily>(program: &str, table: &str, at: fn(u8) -> F::Address) -> Result<()>
where
    Tuple<F>: Pod,
    FlowEntry<F>: Pod,
{
    const FIN: FlowFlags = FlowFlags::FIN;
    const RST: FlowFlags = FlowFlags::RST;
    const NONE: FlowFlags = FlowFlags::NONE;
    let cases: [(&str, u8, Half, Half, bool); 12] = [
        ("TCP, fresh", TCP, (NONE, 0), (NONE, 0), false),
        (
            "TCP, a little younger than its time",
            TCP,
            (NONE, 990),
            (NONE, 990),
            false,
        ),
        (
            "TCP, older than its time",
            TCP,
            (NONE, 1010),
            (NONE, 1010),
            true,
        ),
        ("TCP that only sends", TCP, (NONE, 0), (NONE, 5000), false),
        (
            "TCP that only receives",
            TCP,
            (NONE, 5000),
            (NONE, 0),
            false,
        ),
        (
            "one end has closed, lately",
            TCP,
            (FIN, 90),
            (NONE, 90),
            false,
        ),
        ("one end has closed", TCP, (NONE, 110), (FIN, 110), true),
        ("both have closed, lately", TCP, (FIN, 5), (FIN, 5), false),
        ("both have closed", TCP, (FIN, 20), (FIN, 20), true),
        ("reset", TCP, (NONE, 20), (RST, 20), true),
        ("UDP, lately", UDP, (NONE, 40), (NONE, 40), false),
        ("UDP", UDP, (NONE, 60), (NONE, 60), true),
    ];
    let config = DatapathConfig::DEFAULT;
    let mut kernel = KernelProgram::load(lb_userspace::datapath::object(), &config)?;
    let mut ageing: Array<_, Plain<Timeouts>> = kernel.map("AGEING")?;
    ageing.set(0, Plain(TIMEOUTS), 0)?;

    let now = jiffies(&mut kernel)?;
    for (number, (_, protocol, request, reply, _)) in cases.iter().enumerate() {
        let [request_key, reply_key] = keys(at, u16::try_from(number)?, *protocol);
        let sides = [FlowSide::Destination, FlowSide::Source];
        let halves = [
            (request_key, reply_key, *request),
            (reply_key, request_key, *reply),
        ];
        for (side, (key, other, (flags, seconds))) in sides.into_iter().zip(halves) {
            let (address, port) = if side == FlowSide::Destination {
                (other.source, other.source_port)
            } else {
                (other.destination, other.destination_port)
            };
            let entry = FlowEntry::<F> {
                address,
                port,
                side: side.byte(),
                flags,
                last_seen: now.wrapping_sub(seconds * config.jiffies_per_second),
                ..FlowEntry::zeroed()
            };
            assert_eq!(entry.other_half(&key), other, "the case itself");
            kernel.put_flow(table, &key, &entry)?;
        }
    }
    kernel.run(program, &eth().ipv4([0; 4], [0; 4]).udp(1, 1).build(), 1)?;

    let left = kernel.flows::<F>(table)?;
    let mut expired = 0;
    for (number, (what, protocol, _, _, goes)) in cases.iter().enumerate() {
        for key in keys(at, u16::try_from(number)?, *protocol) {
            assert_eq!(left.contains_key(&key), !goes, "{what}");
        }
        expired += u64::from(*goes);
    }
    // Of UDP's share what is left is counted again.
    let marks: Array<_, Plain<FlowMarks>> = kernel.map("FLOW_MARKS")?;
    let [v4, v6] = marks.get(&0, 0)?.0.udp_entries;
    let of_udp = left.keys().filter(|key| key.protocol_number() == UDP);
    assert_eq!((v4 + v6) as usize, of_udp.count());
    let counted = kernel.counted(Counter::FlowsExpired)?;
    assert!(
        (expired..=2 * expired).contains(&counted),
        "{counted} for {expired} flows"
    );
    Ok(())
}

/// One case of an opening flow: what it is, its protocol, its halves, and whether it goes.
type Case = (&'static str, u8, Half, Half, bool);

#[test]
fn silent_opening_flows_age_away_in_their_time_and_a_masquerade_with_its_flow() -> Result<()> {
    const NONE: FlowFlags = FlowFlags::NONE;
    const CROWDED: FlowFlags = FlowFlags::CROWDED;
    const REPLIED: FlowFlags = FlowFlags::REPLIED;
    if !require_root() {
        return Ok(());
    }
    let cases: [Case; 10] = [
        ("fresh", TCP, (NONE, 0), (NONE, 0), false),
        ("nearly a minute", TCP, (NONE, 55), (NONE, 55), false),
        ("a minute", TCP, (NONE, 61), (NONE, 61), true),
        ("one end speaks", TCP, (NONE, 61), (NONE, 10), false),
        ("found no room", TCP, (CROWDED, 61), (NONE, 61), false),
        (
            "found no room, old",
            TCP,
            (CROWDED, 1001),
            (NONE, 1001),
            true,
        ),
        ("UDP, answered", UDP, (REPLIED, 61), (NONE, 61), false),
        (
            "UDP, not answered, lately",
            UDP,
            (NONE, 15),
            (NONE, 15),
            false,
        ),
        ("UDP, not answered", UDP, (NONE, 25), (NONE, 25), true),
        (
            "UDP, answered lately",
            UDP,
            (REPLIED, 25),
            (NONE, 25),
            false,
        ),
    ];
    let config = DatapathConfig::DEFAULT;
    let mut kernel = KernelProgram::load(lb_userspace::datapath::object(), &config)?;
    let timeouts = Timeouts {
        udp_stream: 100,
        ..TIMEOUTS
    };
    let mut ageing: Array<_, Plain<Timeouts>> = kernel.map("AGEING")?;
    ageing.set(0, Plain(timeouts), 0)?;
    let now = jiffies(&mut kernel)?;
    let at = |last| [10, 0, 0, last].into();
    let before = |seconds: u32| now.wrapping_sub(seconds * config.jiffies_per_second);
    for (number, (_, protocol, request, reply, _)) in (0..).zip(&cases) {
        let [request_key, reply_key] = keys::<V4>(at, number, *protocol);
        let request = FlowEntry::<V4> {
            address: at(3),
            port: Port::new(8080),
            side: FlowSide::Destination.byte(),
            flags: request
                .0
                .with(FlowFlags::REQUEST)
                .with(FlowFlags::MASQUERADE),
            last_seen: before(request.1),
            ..FlowEntry::zeroed()
        };
        let reply = FlowEntry::<V4> {
            address: at(2),
            port: Port::new(80),
            side: FlowSide::Source.byte(),
            flags: reply.0.with(FlowFlags::MASQUERADE),
            last_seen: before(reply.1),
            ..FlowEntry::zeroed()
        };
        // The masquerade is silent in every case: it follows its flow.
        let masquerade = FlowEntry::<V4> {
            address: at(4),
            port: Port::new(2000 + number),
            side: FlowSide::Source.byte(),
            flags: FlowFlags::REQUEST.with(FlowFlags::MASQUERADE),
            last_seen: before(500),
            ..FlowEntry::zeroed()
        };
        kernel.put_flow("OPENING_FLOWS_V4", &request_key, &request)?;
        kernel.put_flow("OPENING_FLOWS_V4", &reply_key, &reply)?;
        kernel.put_flow("OPENING_FLOWS_V4", &reply_key.reversed(), &masquerade)?;
    }
    let packet = eth().ipv4([0; 4], [0; 4]).udp(1, 1).build();
    for _ in 0..2 {
        kernel.run("age_flows_v4", &packet, 1)?;
    }
    let left = kernel.flows::<V4>("OPENING_FLOWS_V4")?;
    for (number, (what, protocol, _, _, goes)) in (0..).zip(&cases) {
        let [request, reply] = keys::<V4>(at, number, *protocol);
        for key in [request, reply, reply.reversed()] {
            assert_eq!(left.contains_key(&key), !goes, "{what}: {key:?}");
        }
    }
    Ok(())
}

/// Request and reply of the nth case.
fn keys<F: IpFamily>(at: fn(u8) -> F::Address, number: u16, protocol: u8) -> [Tuple<F>; 2] {
    let request = Tuple::new(
        at(1),
        Port::new(1000 + number),
        at(2),
        Port::new(80),
        protocol,
    );
    let backend = request.with_destination(at(3), Port::new(8080));
    [request, backend.reversed().leaving()]
}

/// The kernel's time, as a program writes it: a known flow's packet passes, and its entry says when.
fn jiffies(kernel: &mut KernelProgram) -> Result<u32> {
    let [key, _] = keys::<V4>(|last| [10, 0, 0, last].into(), 999, UDP);
    let key = key.leaving();
    let entry = FlowEntry {
        address: [10, 0, 0, 9].into(),
        port: Port::new(9),
        side: FlowSide::Source.byte(),
        ..FlowEntry::<V4>::zeroed()
    };
    // Whatever the time is, one of two entries half a cycle apart is older than a second.
    for last_seen in [0, 1 << 31] {
        kernel.put_flow("FLOWS_V4", &key, &FlowEntry { last_seen, ..entry })?;
        let packet = eth()
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
            .udp(1999, 80)
            .build();
        kernel.run("tc_egress_ethernet", &packet, 1)?;
        let found = kernel.flows::<V4>("FLOWS_V4")?;
        let written = found.get(&key).map(|entry| entry.last_seen);
        if let Some(written) = written.filter(|written| *written != last_seen) {
            kernel.clear_flows::<V4>("FLOWS_V4")?;
            return Ok(written);
        }
    }
    anyhow::bail!("no program writes the time of a flow")
}
