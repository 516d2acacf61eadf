//! `cargo xtask bench datapath [ROUNDS [OBJECT]]`: nanoseconds a packet by `BPF_PROG_TEST_RUN`, beside a floor program in the same
//! run. Figures contain what a test run itself costs (the row `tc_empty`).
//!
//! A test run hands a packet on as the last repetition left it, so each program is tail-called by a wrapper that puts
//! the packet back first; the wrapper's own cost, measured over a program that does nothing, is taken off. Each round
//! measures every row once, so that a slow moment of the machine falls on all of them. Trust minima.
//!
//! With another build's object the rows of both are measured in the same rounds, and how the two compare is printed.
#![expect(clippy::print_stdout, reason = "a program whose output is a table")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use aya::maps::HashMap;
use bytemuck::Pod;
use lb_common::{FlowEntry, FlowSide, Tuple, V4, V6};
use lb_ebpf::{bytes::parse::Link, context::scratch::Scratch};
use lb_userspace::maps::bpf::Plain;
use tests::{
    machine::bench::{Report, Row, Samples, pin_to_one_cpu, write_json},
    machine::kernel_program::KernelProgram,
    memory_packet::MemoryPacket,
    oracle::host_datapath,
    oracle::memory_tables::MemoryFamily,
    packets::dissect::dissect,
    packets::generate::{Cluster, Hook, Shape, Way, conversation},
};

/// How often a program runs in a round: about 50 ms.
const REPEAT: u32 = 400_000;
const ROUNDS: u32 = 15;
/// As small packets are, and no frame shorter than what the wrapper puts back.
const PAYLOAD: usize = 32;
/// What is measured.
struct Subject {
    name: &'static str,
    /// The product's or the floor's program.
    program: &'static str,
    frame: Vec<u8>,
    /// What the program must make of the frame.
    becomes: Vec<u8>,
    floor: Option<&'static str>,
}

/// A subject ready to run: its wrapper, holding the program, and that of another object's program.
struct Prepared {
    subject: Subject,
    wrapper: KernelProgram,
    samples: Samples,
    other: Option<(KernelProgram, Samples)>,
}

/// The datapath on the host: makes the flows that are measured, and says what programs must make of frames.
struct Host {
    cluster: Cluster,
    scratch: Scratch,
}

impl Host {
    fn send(&mut self, hook: Hook, bytes: &[u8]) -> Vec<u8> {
        let mut packet = MemoryPacket::new(bytes.to_vec());
        let tables = &mut self.cluster.tables;
        let scratch = &mut self.scratch;
        let _verdict = host_datapath::run(hook, &mut packet, Link::Ethernet, scratch, tables);
        packet.bytes
    }

    /// Opens a flow and proves it; gives a request and a reply of it, each as it was before and after translation.
    fn open(&mut self, way: Way) -> Result<[(Vec<u8>, Vec<u8>); 2]> {
        let (protocol, mut source, mut destination) = way.ends();
        let mut passed = Vec::new();
        for shape in conversation().into_iter().take(4) {
            let payload = vec![7; PAYLOAD];
            let before = Shape { payload, ..shape }.bytes(protocol, source, destination);
            let hook = if passed.len() % 2 == 0 {
                Hook::Ingress
            } else {
                Hook::Egress
            };
            let after = self.send(hook, &before);
            let delivered = dissect(&after, Link::Ethernet)
                .map_err(|reason| anyhow::anyhow!("no packet any more: {reason:?}"))?;
            (source, destination) = (delivered.destination, delivered.source);
            ensure!(before != after, "{way:?} is not translated");
            passed.push((before, after));
        }
        let reply = passed.pop().context("four packets")?;
        let request = passed.pop().context("four packets")?;
        Ok([request, reply])
    }
}

/// Copies the flows that the host made to the kernel.
fn copy_flows<F: MemoryFamily>(host: &Host, kernel: &mut KernelProgram, table: &str) -> Result<()>
where
    Tuple<F>: Pod,
    FlowEntry<F>: Pod,
{
    let own = F::own(&host.cluster.tables);
    ensure!(!own.proven.is_empty(), "no flow of this family is proven");
    for (key, entry) in own.proven.iter() {
        kernel.put_flow(table, &key, &entry)?;
    }
    Ok(())
}

/// Tells the floor program of the proven requests.
fn copy_targets<F: MemoryFamily>(host: &Host, floor: &mut KernelProgram, table: &str) -> Result<()>
where
    Tuple<F>: Pod,
{
    for (key, entry) in F::own(&host.cluster.tables).proven.iter() {
        if entry.side != FlowSide::Destination.byte() {
            continue;
        }
        let address = bytemuck::bytes_of(&entry.address);
        let port = entry.port.to_wire();
        // As floor.rs lays it out: address, port, two bytes of nothing.
        if F::VERSION == 4 {
            let mut target = [0u8; 8];
            target[..4].copy_from_slice(address);
            target[4..6].copy_from_slice(&port);
            insert(floor, table, key, target)?;
        } else {
            let mut target = [0u8; 24];
            target[..16].copy_from_slice(address);
            target[16..18].copy_from_slice(&port);
            insert(floor, table, key, target)?;
        }
    }
    Ok(())
}

fn insert<K: Pod, V: Pod>(kernel: &mut KernelProgram, table: &str, key: K, value: V) -> Result<()> {
    let mut map: HashMap<_, Plain<K>, Plain<V>> = kernel.map(table)?;
    Ok(map.insert(Plain(key), Plain(value), 0)?)
}

fn reset_of(frame: &[u8]) -> &'static str {
    if frame[12..14] == [0x86, 0xdd] {
        "reset_v6"
    } else {
        "reset_v4"
    }
}

fn subjects(host: &mut Host) -> Result<Vec<Subject>> {
    let subject = |name, program, (frame, becomes): (Vec<u8>, Vec<u8>), floor| Subject {
        name,
        program,
        frame,
        becomes,
        floor,
    };
    let dial = |service| Way::Request {
        service,
        client: 0,
        port: 0,
    };
    let [request_v4, reply_v4] = host.open(dial(1))?;
    let [request_v6, reply_v6] = host.open(dial(6))?;
    let [udp_v4, _] = host.open(dial(4))?;
    let other = |service| {
        let way = Way::WrongPort {
            service,
            client: 0,
            port: 0,
        };
        let (protocol, source, mut destination) = way.ends();
        // Far from all addresses of Services.
        destination.set_ip(match destination.ip() {
            IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 9).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into(),
        });
        let bytes =
            Shape::plain(tests::packets::dissect::flag::ACK).bytes(protocol, source, destination);
        (bytes.clone(), bytes)
    };
    let (floor_v4, floor_v6) = ("floor_lru_rewrite_v4", "floor_lru_rewrite_v6");
    let (ingress, egress) = ("tc_ingress_ethernet", "tc_egress_ethernet");
    Ok(vec![
        subject("tc_empty", "tc_empty", other(1), None),
        subject(floor_v4, floor_v4, request_v4.clone(), None),
        subject("tc_established_v4", ingress, request_v4, Some(floor_v4)),
        subject("tc_reply_v4", egress, reply_v4, Some(floor_v4)),
        subject("tc_udp_v4", ingress, udp_v4, Some(floor_v4)),
        subject("tc_not_ours_v4", ingress, other(1), Some("tc_empty")),
        subject("tc_not_ours_egress_v4", egress, other(1), Some("tc_empty")),
        subject(floor_v6, floor_v6, request_v6.clone(), None),
        subject("tc_established_v6", ingress, request_v6, Some(floor_v6)),
        subject("tc_reply_v6", egress, reply_v6, Some(floor_v6)),
        subject("tc_not_ours_v6", ingress, other(6), Some("tc_empty")),
    ])
}

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(number) => number
            .parse()
            .context("the first argument is a number of rounds")?,
        None => ROUNDS,
    };
    let mut host = Host {
        cluster: Cluster::choosing_by_hash(),
        scratch: Scratch::default(),
    };
    let subjects = subjects(&mut host)?;
    let mut kernel = filled(&host, lb_userspace::datapath::object())?;
    let mut other = match std::env::args().nth(2) {
        Some(path) => {
            let object = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            Some(filled(&host, &object)?)
        }
        None => None,
    };
    let mut floor = KernelProgram::floor()?;
    copy_targets::<V4>(&host, &mut floor, "FLOOR_FLOWS_V4")?;
    copy_targets::<V6>(&host, &mut floor, "FLOOR_FLOWS_V6")?;

    let mut prepared = Vec::new();
    let mut wrappers = Vec::new();
    for subject in subjects {
        let of_product = ["tc_ingress_ethernet", "tc_egress_ethernet"].contains(&subject.program);
        let program = if of_product { &mut kernel } else { &mut floor };
        let wrapper = wrapped(program, &subject)?;
        let other = match &mut other {
            Some(other) if of_product => Some((wrapped(other, &subject)?, Samples::default())),
            _ => None,
        };
        wrappers.push(floor.wrapped("tc_empty", &subject.frame)?);
        prepared.push(Prepared {
            subject,
            wrapper,
            samples: Samples::default(),
            other,
        });
    }
    measure(rounds, &mut prepared, &mut wrappers, &mut floor)
}

/// The programs of an object, with the host's tables and flows.
fn filled(host: &Host, object: &[u8]) -> Result<KernelProgram> {
    let mut kernel = KernelProgram::load(object, &host.cluster.tables.config)?;
    kernel.fill(&host.cluster.tables)?;
    copy_flows::<V4>(host, &mut kernel, "FLOWS_V4")?;
    copy_flows::<V6>(host, &mut kernel, "FLOWS_V6")?;
    Ok(kernel)
}

/// The wrapper of a program that does the subject's work.
fn wrapped(program: &mut KernelProgram, subject: &Subject) -> Result<KernelProgram> {
    let mut wrapper = program.wrapped(subject.program, &subject.frame)?;
    let ran = wrapper.run(reset_of(&subject.frame), &subject.frame, 3)?;
    ensure!(
        ran.bytes == subject.becomes,
        "{} does not do its work: {:?} became {:?}",
        subject.name,
        dissect(&subject.frame, Link::Ethernet),
        dissect(&ran.bytes, Link::Ethernet)
    );
    Ok(wrapper)
}

fn measure(
    rounds: u32,
    prepared: &mut [Prepared],
    wrappers: &mut [KernelProgram],
    floor: &mut KernelProgram,
) -> Result<()> {
    pin_to_one_cpu()?;
    let mut empty = Samples::default();
    let mut wrapped = vec![Samples::default(); wrappers.len()];
    for _ in 0..rounds {
        for ((row, wrapper), wrapped) in prepared.iter_mut().zip(&mut *wrappers).zip(&mut wrapped) {
            let frame = &row.subject.frame;
            empty.push(floor.run("tc_empty", frame, REPEAT)?.nanoseconds);
            wrapped.push(wrapper.run(reset_of(frame), frame, REPEAT)?.nanoseconds);
            row.samples
                .push(row.wrapper.run(reset_of(frame), frame, REPEAT)?.nanoseconds);
            if let Some((wrapper, samples)) = &mut row.other {
                samples.push(wrapper.run(reset_of(frame), frame, REPEAT)?.nanoseconds);
            }
        }
    }
    let rows = prepared.iter().zip(&wrapped).map(|(row, wrapped)| Row {
        name: row.subject.name.to_owned(),
        min_ns: row.samples.min() + empty.min() - wrapped.min(),
        median_ns: row.samples.quantile(0.5) + empty.quantile(0.5) - wrapped.quantile(0.5),
        floor: row.subject.floor.map(str::to_owned),
    });
    let report = Report(rows.collect());
    let costs = wrapped
        .iter()
        .map(|wrapped| wrapped.min() - empty.min().min(wrapped.min()));
    println!("{}", report.table());
    for (row, wrapped) in prepared.iter().zip(&wrapped) {
        if let Some((_, other)) = &row.other {
            let taken_off = wrapped.min() - empty.min().min(wrapped.min());
            let (ours, its) = (row.samples.min() - taken_off, other.min() - taken_off);
            let name = row.subject.name;
            let percent = ours * 100 / its.max(1);
            println!("{name}: {ours} ns, {percent} % of the other object's {its} ns");
        }
    }
    println!(
        "{rounds} rounds of {REPEAT} packets each; taken off for the wrapper: {} ns at most",
        costs.max().unwrap_or_default()
    );
    let path = write_json("datapath", &report.json())?;
    println!("written: {}", path.display());
    Ok(())
}
