//! Plays events to the datapath and to the reference, and compares.
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::{
    Counter, FlowEntry, FlowFlags, FlowSide, IpFamily, PassReason, Port, Tuple, Verdict,
};
use lb_ebpf::{bytes::parse::Link, context::scratch::Scratch};
use tests::{
    memory_packet::MemoryPacket,
    oracle::host_datapath,
    oracle::memory_tables::FamilyTables,
    oracle::reference::{Awaited, End, Half, Key, Observed},
    packets::dissect::{
        UDP, assert_checksums, dissect, header_checksum_holds, transport_checksum_holds,
    },
    packets::generate::{Cluster, Event, Hook, Shape, Way, cluster, conversation},
};

/// How many cases a property has: `PROPTEST_CASES`, or the default.
pub(crate) fn cases(default: u32) -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted
        .and_then(|number| number.parse().ok())
        .unwrap_or(default)
}

/// A packet that was seen lately.
#[derive(Clone)]
struct Seen {
    bytes: Vec<u8>,
    link: Link,
}

/// Datapath and reference side by side.
pub(crate) struct Player {
    pub(crate) cluster: Cluster,
    /// How often each verdict was seen.
    pub(crate) verdicts: BTreeMap<String, u32>,
    lately: VecDeque<Seen>,
    /// As in the kernel, what one packet leaves there the next one finds.
    scratch: Scratch,
}

impl Player {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            verdicts: BTreeMap::new(),
            lately: VecDeque::new(),
            scratch: Scratch::default(),
        }
    }

    /// Lets an event happen on both sides.
    pub(crate) fn play(&mut self, event: &Event) {
        match event {
            Event::Packet(hook, way, shape) => {
                let (protocol, source, destination) = way.ends();
                let bytes = shape.bytes(protocol, source, destination);
                let linear = shape.linear.unwrap_or(usize::MAX);
                self.send(*hook, &bytes, shape.link(), linear);
            }
            Event::Pieces(way, shape, in_order) => {
                let (protocol, source, destination) = way.ends();
                for piece in shape.pieces(*in_order) {
                    let bytes = piece.bytes(protocol, source, destination);
                    self.send(way.hook(), &bytes, piece.link(), usize::MAX);
                }
            }
            Event::Complaint(complaint) => {
                self.converse(&complaint.way.request(), 1);
                let bytes = complaint.bytes();
                self.send(complaint.hook, &bytes, complaint.link(), usize::MAX);
            }
            Event::Onward(nth, hook) => {
                if let Some(seen) = self.lately.get(*nth).cloned() {
                    self.send(*hook, &seen.bytes, seen.link, usize::MAX);
                }
            }
            Event::Answer(nth, hook, flags) => self.answer(*nth, *hook, *flags),
            Event::Conversation(way, packets) => self.converse(way, *packets),
            Event::Garbage(hook, bytes) => {
                for link in [Link::Ethernet, Link::Ip] {
                    self.send(*hook, bytes, link, usize::MAX);
                }
            }
            Event::Advance(seconds) => self.cluster.advance(*seconds),
            Event::Leave(backend, state) => self.cluster.leave(*backend, *state),
            Event::Return(backend) => self.cluster.join(*backend),
            Event::Replace(backend) => self.cluster.replace(*backend),
            Event::Evict(nth) => self.evict(*nth),
            Event::HandOver(of, to) => self.cluster.hand_over(*of, *to),
            Event::Room(entries) => self.cluster.set_room(*entries),
        }
    }

    /// Every packet enters the node and leaves it, and what the other end then sees, it answers. Ends early where
    /// nobody answers.
    fn converse(&mut self, way: &Way, packets: usize) {
        let (protocol, mut source, mut destination) = way.ends();
        for shape in conversation().into_iter().take(packets) {
            let mut bytes = shape.bytes(protocol, source, destination);
            for hook in [Hook::Ingress, Hook::Egress] {
                let observed = self.send(hook, &bytes, shape.link(), usize::MAX);
                if matches!(observed.verdict, Verdict::Drop(_)) {
                    return;
                }
                bytes = observed.bytes;
            }
            let Ok(delivered) = dissect(&bytes, shape.link()) else {
                return;
            };
            (source, destination) = (delivered.destination, delivered.source);
        }
    }

    fn answer(&mut self, nth: usize, hook: Hook, flags: u8) {
        let Some(seen) = self.lately.get(nth).cloned() else {
            return;
        };
        let Ok(packet) = dissect(&seen.bytes, seen.link) else {
            return;
        };
        let shape = Shape {
            is_ethernet: seen.link == Link::Ethernet,
            sequence: packet.acknowledgement,
            acknowledgement: packet.sequence.wrapping_add(1),
            ..Shape::plain(flags)
        };
        let bytes = shape.bytes(packet.protocol, packet.destination, packet.source);
        self.send(hook, &bytes, seen.link, usize::MAX);
    }

    /// Throws the nth entry out of `OPENING_FLOWS`.
    fn evict(&mut self, nth: usize) {
        let tables = &mut self.cluster.tables;
        let in_v6 = nth.checked_sub(tables.v4.opening.len());
        let victim = match in_v6 {
            None => tables
                .v4
                .opening
                .evict(nth)
                .map(|tuple| (key(&tuple), tuple.is_awaited())),
            Some(nth) => tables
                .v6
                .opening
                .evict(nth)
                .map(|tuple| (key(&tuple), tuple.is_awaited())),
        };
        let world = &mut self.cluster.world;
        match victim {
            Some((victim, false)) => _ = world.halves.remove(&victim),
            Some((victim, true)) => _ = world.awaited.remove(&victim),
            None => {}
        }
    }

    /// Sends a packet through both, compares, and gives the verdict and the bytes.
    pub(crate) fn send(&mut self, hook: Hook, bytes: &[u8], link: Link, linear: usize) -> Observed {
        let interface = interface(hook, bytes, link);
        let mut packet = MemoryPacket::new(bytes.to_vec())
            .with_linear(linear)
            .at_interface(interface);
        packet.neighbours = self.cluster.world.neighbours.clone().into_iter().collect();
        let scratch = &mut self.scratch;
        let Cluster { tables, world, .. } = &mut self.cluster;
        let verdict = host_datapath::run(hook, &mut packet, link, scratch, tables);
        let observed = Observed {
            verdict,
            bytes: packet.bytes,
        };
        let expected = match hook {
            Hook::Ingress => world.ingress(bytes, link, interface, &observed),
            Hook::Egress => world.egress(bytes, link, interface, &observed),
        };
        let what = || {
            format!(
                "{hook:?} {link:?} of {:?}\n{bytes:02x?}",
                dissect(bytes, link)
            )
        };
        assert!(
            agree(observed.verdict, expected.verdict),
            "the datapath says {:?}, the reference {:?} at {}",
            observed.verdict,
            expected.verdict,
            what()
        );
        assert_eq!(
            observed.bytes,
            expected.bytes,
            "bytes after {:?} at {}\nnow {:?}\nnot {:?}",
            verdict,
            what(),
            dissect(&observed.bytes, link),
            dissect(&expected.bytes, link)
        );
        assert_invariants(bytes, link, &observed);
        self.assert_same_memory(&what);
        *self.verdicts.entry(format!("{verdict:?}")).or_default() += 1;
        self.lately.push_front(Seen {
            bytes: observed.bytes.clone(),
            link,
        });
        self.lately.truncate(4);
        observed
    }

    fn assert_same_memory(&self, what: &dyn Fn() -> String) {
        let Cluster { tables, world, .. } = &self.cluster;
        let (mut remembered, mut awaited) = (BTreeMap::new(), BTreeMap::new());
        collect(&tables.v4, &mut remembered, &mut awaited);
        collect(&tables.v6, &mut remembered, &mut awaited);
        assert_eq!(awaited, world.awaited, "awaited after {}", what());
        for (key, half) in &world.halves {
            let found = remembered.remove(key);
            assert_eq!(
                found.as_ref(),
                Some(half),
                "entry of {key:?}\nafter {}",
                what()
            );
        }
        assert!(
            remembered.is_empty(),
            "remembered in vain: {remembered:?}\nafter {}",
            what()
        );
        for counter in [
            Counter::FlowsOpened,
            Counter::FlowsProven,
            Counter::FlowsTableFull,
            Counter::FlowsRebalanced,
            Counter::FlowsRepaired,
        ] {
            let expected = world.counters.get(&counter).copied().unwrap_or_default();
            assert_eq!(
                tables.counted(counter),
                expected,
                "{}\nafter {}",
                counter.name(),
                what()
            );
        }
    }
}

/// What holds whatever the reference says.
fn assert_invariants(before: &[u8], link: Link, observed: &Observed) {
    if !matches!(observed.verdict, Verdict::Translated(_)) {
        assert_eq!(
            observed.bytes, before,
            "{:?} changed bytes",
            observed.verdict
        );
        return;
    }
    assert_ne!(
        observed.bytes, before,
        "{:?} changed nothing",
        observed.verdict
    );
    // What has no ports of its own, the reference has looked through.
    let Ok(packet) = dissect(before, link) else {
        return;
    };
    if header_checksum_holds(before, &packet) && transport_checksum_holds(before, &packet) {
        assert_checksums(&observed.bytes, link);
    }
}

/// The same verdict; what is malformed may be other things as well, depending on where one looks first.
fn agree(one: Verdict, other: Verdict) -> bool {
    use PassReason::Malformed;
    let pair = (one, other);
    one == other
        || matches!(
            pair,
            (Verdict::Pass(Malformed), Verdict::Pass(_))
                | (Verdict::Pass(_), Verdict::Pass(Malformed))
        )
}

/// The device a packet passes: the second client has a port of the bridge, and some ways out have no address.
fn interface(hook: Hook, bytes: &[u8], link: Link) -> u32 {
    let Ok(packet) = dissect(bytes, link) else {
        return cluster::UPLINK;
    };
    let bridged = cluster::client(packet.source.is_ipv6(), 1);
    match hook {
        Hook::Ingress if packet.source.ip() == bridged => cluster::BRIDGE_PORT,
        Hook::Egress if packet.source.port() % 3 == 2 => cluster::BARE,
        Hook::Ingress | Hook::Egress => cluster::UPLINK,
    }
}

fn key<F: IpFamily>(tuple: &Tuple<F>) -> Key {
    let at = |address: F::Address, port: Port| {
        let address: IpAddr = address.into();
        SocketAddr::new(address, port.number())
    };
    Key {
        source: at(tuple.source, tuple.source_port),
        destination: at(tuple.destination, tuple.destination_port),
        protocol: tuple.protocol_number(),
        end: if tuple.protocol & Tuple::<F>::LEAVES == 0 {
            End::Destination
        } else {
            End::Source
        },
    }
}

fn collect<F: IpFamily>(
    tables: &FamilyTables<F>,
    into: &mut BTreeMap<Key, Half>,
    awaited: &mut BTreeMap<Key, Awaited>,
) {
    let proven = tables
        .proven
        .iter()
        .map(|(tuple, entry)| (tuple, entry, true));
    let opening = tables
        .opening
        .iter()
        .map(|(tuple, entry)| (tuple, entry, false));
    for (tuple, entry, is_proven) in proven.chain(opening) {
        if tuple.is_awaited() {
            let noted = Awaited {
                is_replied: entry.flags.has(FlowFlags::REPLIED),
                last_seen: entry.last_seen,
            };
            awaited.insert(key(&tuple), noted);
            continue;
        }
        let earlier = into.insert(
            key(&tuple),
            half(&entry, is_proven, tuple.protocol_number() == UDP),
        );
        assert!(earlier.is_none(), "{:?} stands in both tables", key(&tuple));
    }
}

fn half<F: IpFamily>(entry: &FlowEntry<F>, is_proven: bool, is_udp: bool) -> Half {
    let flags = entry.flags;
    Half {
        end: if entry.side == FlowSide::Destination.byte() {
            End::Destination
        } else {
            End::Source
        },
        to: decided(entry),
        other_port: (entry.other_port != Port::ZERO).then(|| entry.other_port.number()),
        backend: entry.backend_id,
        generation: entry.generation,
        service: entry.service_id,
        is_request: flags.has(FlowFlags::REQUEST),
        is_proven,
        fin: flags.has(FlowFlags::FIN),
        rst: flags.has(FlowFlags::RST),
        is_replied: is_udp && flags.has(FlowFlags::REPLIED),
        masquerade: flags.has(FlowFlags::MASQUERADE),
        is_crowded: flags.has(FlowFlags::CROWDED),
        expected_ack: flags
            .has(FlowFlags::CHALLENGED)
            .then_some(entry.expected_ack),
        last_seen: entry.last_seen,
    }
}

/// What the rewritten end becomes; while it is not decided, the port is zero and the address means nothing.
fn decided<F: IpFamily>(entry: &FlowEntry<F>) -> SocketAddr {
    let address: IpAddr = entry.address.into();
    match (entry.port.number(), address) {
        (0, IpAddr::V4(_)) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        (0, IpAddr::V6(_)) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        (port, address) => SocketAddr::new(address, port),
    }
}
