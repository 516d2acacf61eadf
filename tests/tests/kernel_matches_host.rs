//! The kernel programs and the host build of the same library agree: same frames, same tables, same actions, bytes,
//! flow entries and counters, over 20,000 random frames. Services choose by hash here, for the kernel's chance cannot
//! be told beforehand.
//!
//! What `BPF_PROG_TEST_RUN` can and cannot do: it takes the first 14 bytes of every packet for an Ethernet header and
//! derives only `skb->protocol` from them, so programs for plain-IP devices, which look at the bytes alone, run on
//! packets that start at the IP header (of at least 14 bytes). It refuses frames that are shorter than the header they
//! promise; its buffers are linear and not summed by a device (`CHECKSUM_NONE`). Truncation is tested on the host,
//! non-linear and partly summed packets over real devices.
#![expect(
    clippy::print_stdout,
    reason = "how many frames came to what, with --nocapture"
)]

use std::collections::BTreeMap;

use anyhow::Result;
use lb_common::{
    AffinityEntry, AffinityKey, Counter, DatapathConfig, FlowEntry, IpFamily, Tuple, V4, V6,
    Verdict,
};
use lb_ebpf::{bytes::parse::Link, context::scratch::Scratch};
use proptest::{strategy::Strategy as _, strategy::ValueTree as _, test_runner::TestRunner};
use tests::{
    machine::kernel_program::KernelProgram,
    memory_packet::MemoryPacket,
    oracle::host_datapath,
    oracle::memory_tables::FamilyTables,
    oracle::reference::Masqueraded,
    packets::dissect::dissect,
    packets::generate::{
        Cluster, Event, Hook, Shape, Way, cluster::SERVICES, conversation, events,
    },
    require_root,
};

/// `TC_ACT_UNSPEC`: go on with the next program.
const GO_ON: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// How many frames are sent.
const FRAMES: u32 = 20_000;

/// Kernel and host side by side.
struct Both {
    cluster: Cluster,
    scratch: Scratch,
    kernel: KernelProgram,
    refused: u32,
    seen: BTreeMap<String, u32>,
}

impl Both {
    fn new() -> Result<Self> {
        Self::over(&[])
    }

    /// With room for so few proven flows of each family.
    fn with_room(entries: u32) -> Result<Self> {
        let mut both = Self::over(&[("FLOWS_V4", entries), ("FLOWS_V6", entries)])?;
        both.cluster.set_room(usize::try_from(entries)?);
        Ok(both)
    }

    fn over(rooms: &[(&str, u32)]) -> Result<Self> {
        let cluster = Cluster::choosing_by_hash();
        let object = lb_userspace::datapath::object();
        // The host's clock stands still, the kernel's does not: a second is made hundreds of
        // times as long, so that no flow is over or silent before a slow machine has run the test.
        let config = DatapathConfig {
            jiffies_per_second: 100_000,
            ..cluster.tables.config
        };
        let mut kernel = KernelProgram::load_over(object, &config, rooms)?;
        kernel.fill(&cluster.tables)?;
        Ok(Self {
            cluster,
            scratch: Scratch::default(),
            kernel,
            refused: 0,
            seen: BTreeMap::new(),
        })
    }

    /// Sends a frame through both; `None` where the kernel refuses to run on it.
    fn send(&mut self, hook: Hook, bytes: &[u8], link: Link) -> Option<Vec<u8>> {
        let program = match (hook, link) {
            (Hook::Ingress, Link::Ethernet) => "tc_ingress_ethernet",
            (Hook::Egress, Link::Ethernet) => "tc_egress_ethernet",
            (Hook::Ingress, Link::Ip) => "tc_ingress_ip",
            (Hook::Egress, Link::Ip) => "tc_egress_ip",
        };
        let Ok(ran) = self.kernel.run(program, bytes, 1) else {
            self.refused += 1;
            return None;
        };
        let mut packet = MemoryPacket::new(bytes.to_vec());
        // Test runs are on the loopback device, whose Ethernet address is zero (`eth_type_trans`).
        let is_unicast = bytes.first().is_some_and(|first| first & 1 == 0);
        packet.is_for_another_machine = is_unicast && !bytes.starts_with(&[0; 6]);
        let tables = &mut self.cluster.tables;
        let scratch = &mut self.scratch;
        let verdict = host_datapath::run(hook, &mut packet, link, scratch, tables);
        let action = match verdict {
            Verdict::Pass(_) | Verdict::Translated(_) => GO_ON,
            Verdict::Drop(_) => DROP,
        };
        let what = format!(
            "{program} on {:?}: {verdict:?}\n{bytes:02x?}",
            dissect(bytes, link)
        );
        assert_eq!(ran.action, action, "action of {what}");
        assert_eq!(ran.bytes, packet.bytes, "bytes of {what}");
        *self.seen.entry(format!("{verdict:?}")).or_default() += 1;
        Some(packet.bytes)
    }

    fn play(&mut self, event: &Event) -> Result<u32> {
        match event {
            Event::Packet(_, way, _) | Event::Conversation(way, _) | Event::Pieces(way, ..)
                if is_left_to_chance(way) =>
            {
                Ok(0)
            }
            Event::Pieces(way, shape, in_order) => {
                let (protocol, source, destination) = way.ends();
                for piece in shape.pieces(*in_order) {
                    let bytes = piece.bytes(protocol, source, destination);
                    let _fate = self.send(way.hook(), &bytes, piece.link());
                }
                Ok(2)
            }
            Event::Packet(hook, way, shape) => {
                let (protocol, source, destination) = way.ends();
                let bytes = shape.bytes(protocol, source, destination);
                let _fate = self.send(*hook, &bytes, shape.link());
                Ok(1)
            }
            Event::Complaint(complaint) => {
                let opening = complaint.way.request();
                let sent = if is_left_to_chance(&opening) {
                    0
                } else {
                    self.converse(&opening, 1)
                };
                let _fate = self.send(complaint.hook, &complaint.bytes(), complaint.link());
                Ok(sent + 1)
            }
            Event::Conversation(way, packets) => Ok(self.converse(way, *packets)),
            Event::Leave(backend, state) => {
                self.cluster.leave(*backend, *state);
                self.kernel.fill(&self.cluster.tables)?;
                Ok(0)
            }
            Event::Return(backend) => {
                self.cluster.join(*backend);
                self.kernel.fill(&self.cluster.tables)?;
                Ok(0)
            }
            Event::Garbage(..)
            | Event::Onward(..)
            | Event::Answer(..)
            | Event::Advance(_)
            | Event::Replace(_)
            | Event::Evict(_)
            | Event::HandOver(..)
            | Event::Room(_) => Ok(0),
        }
    }

    /// Every packet enters the node and leaves it, and what the other end then sees, it answers.
    fn converse(&mut self, way: &Way, packets: usize) -> u32 {
        let (protocol, mut source, mut destination) = way.ends();
        let is_ethernet = source.port() % 2 == 0;
        let mut sent = 0;
        for shape in conversation().into_iter().take(packets) {
            let shape = Shape {
                is_ethernet,
                ..shape
            };
            let mut bytes = shape.bytes(protocol, source, destination);
            for hook in [Hook::Ingress, Hook::Egress] {
                sent += 1;
                let Some(after) = self.send(hook, &bytes, shape.link()) else {
                    return sent;
                };
                bytes = after;
            }
            let Ok(delivered) = dissect(&bytes, shape.link()) else {
                return sent;
            };
            (source, destination) = (delivered.destination, delivered.source);
        }
        sent
    }

    fn assert_same_memory(&mut self) -> Result<()> {
        let v4 = by_table(&self.cluster.tables.v4);
        let v6 = by_table(&self.cluster.tables.v6);
        for (table, expected) in ["FLOWS_V4", "OPENING_FLOWS_V4"].into_iter().zip(v4) {
            assert_same(table, &timeless(self.kernel.flows::<V4>(table)?), &expected);
        }
        for (table, expected) in ["FLOWS_V6", "OPENING_FLOWS_V6"].into_iter().zip(v6) {
            assert_same(table, &timeless(self.kernel.flows::<V6>(table)?), &expected);
        }
        let v4 = &self.cluster.tables.v4.affinities;
        assert_same_clients(&self.kernel.affinities::<V4>("AFFINITY_V4")?, v4);
        let v6 = &self.cluster.tables.v6.affinities;
        assert_same_clients(&self.kernel.affinities::<V6>("AFFINITY_V6")?, v6);
        for counter in [
            Counter::FlowsOpened,
            Counter::FlowsProven,
            Counter::FlowsRebalanced,
            Counter::FlowsRepaired,
            Counter::FlowsTableFull,
        ] {
            let host = self.cluster.tables.counted(counter);
            assert_eq!(self.kernel.counted(counter)?, host, "{}", counter.name());
        }
        Ok(())
    }
}

/// Of two clients with the same port only one keeps it under a masquerade; the other's is drawn.
fn is_left_to_chance(way: &Way) -> bool {
    matches!(way, Way::Request { service, client, port }
        if SERVICES[*service].masqueraded != Masqueraded::Nobody && *client != usize::from(*port))
}

/// Compares entry by entry: a whole table says little.
fn assert_same<F: IpFamily>(
    table: &str,
    kernel: &BTreeMap<Tuple<F>, FlowEntry<F>>,
    host: &BTreeMap<Tuple<F>, FlowEntry<F>>,
) {
    assert!(!host.is_empty(), "{table} is empty");
    for key in kernel.keys().chain(host.keys()) {
        assert_eq!(kernel.get(key), host.get(key), "{table}: {key:?}");
    }
}

/// Clients have the same backends; the times differ.
fn assert_same_clients<F: IpFamily>(
    kernel: &BTreeMap<AffinityKey<F>, AffinityEntry>,
    host: &BTreeMap<AffinityKey<F>, AffinityEntry>,
) {
    assert!(!host.is_empty(), "no client has a backend");
    for key in kernel.keys().chain(host.keys()) {
        let backend = |it: &AffinityEntry| (it.backend_id, it.generation);
        let (kernel, host) = (kernel.get(key).map(backend), host.get(key).map(backend));
        assert_eq!(kernel, host, "{key:?}");
    }
}

fn by_table<F: IpFamily>(tables: &FamilyTables<F>) -> [BTreeMap<Tuple<F>, FlowEntry<F>>; 2] {
    [
        timeless(tables.proven.iter().collect()),
        timeless(tables.opening.iter().collect()),
    ]
}

/// Entries without their time, which differs.
fn timeless<F: IpFamily>(
    mut flows: BTreeMap<Tuple<F>, FlowEntry<F>>,
) -> BTreeMap<Tuple<F>, FlowEntry<F>> {
    for entry in flows.values_mut() {
        entry.last_seen = 0;
    }
    flows
}

/// Flows that find no room stay among the opening ones, and both say so.
#[test]
fn full_flow_tables_are_full_in_kernel_and_host() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut both = Both::with_room(6)?;
    let mut runner = TestRunner::deterministic();
    let stories = events(150);
    // Conversations that break off leave room again: what counts is how full the tables became.
    let mut most = [0; 2];
    let mut sent = 0;
    while sent < FRAMES / 10 {
        let story = stories.new_tree(&mut runner).unwrap().current();
        for event in story
            .iter()
            .filter(|it| matches!(it, Event::Conversation(..)))
        {
            sent += both.play(event)?;
            let tables = &both.cluster.tables;
            most[0] = most[0].max(tables.v4.proven.len());
            most[1] = most[1].max(tables.v6.proven.len());
        }
    }
    both.assert_same_memory()?;
    let crowded = both.kernel.counted(Counter::FlowsTableFull)?;
    assert!(crowded > 0, "no flow was refused by a full table");
    assert_eq!(most, [6, 6], "entries at most");
    Ok(())
}

#[test]
fn the_same_frames_have_the_same_fate_in_kernel_and_host() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut both = Both::new()?;
    let mut runner = TestRunner::deterministic();
    let stories = events(150);
    let mut sent = 0;
    while sent < FRAMES {
        let story = stories.new_tree(&mut runner).unwrap().current();
        for event in &story {
            sent += both.play(event)?;
        }
    }
    both.assert_same_memory()?;
    println!(
        "{sent} frames, {} of them refused by the kernel's test run",
        both.refused
    );
    for (verdict, count) in &both.seen {
        println!("{count:8} {verdict}");
    }
    for verdict in [
        "Translated(Request)",
        "Translated(Reply)",
        "Translated(MasqueradedRequest)",
        "Translated(MasqueradedReply)",
        "Translated(IcmpError)",
        "Translated(LaterFragment)",
        "Drop(Redirect)",
        "Drop(NoFlow)",
        "Pass(NotOurs)",
    ] {
        let count = both.seen.get(verdict).copied().unwrap_or_default();
        assert!(count >= 50, "only {count} frames came to {verdict}");
    }
    Ok(())
}
