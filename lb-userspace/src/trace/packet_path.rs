//! The way of a packet through the node: what enters it, what a process dials, what leaves it.
use std::net::SocketAddr;

use bytemuck::Zeroable;
use lb_common::{
    DropReason, FlowSide, FrontendFlags, FrontendKey, PassReason, Port, Protocol, Translation,
    Tuple, V4, V6, Verdict, hash::socket_hash,
};
use lb_ebpf::{
    bytes::{
        headers::Wire,
        parse::{Link, Network, Parse, network},
        parsed::Parsed,
    },
    context::{Hook, scratch::Scratch},
    memory::{clock::MemoryClock, packet::MemoryPacket, tables::MemoryTables},
    path::{
        pipeline::{self, Observer},
        socket::{self, Call, Choice, SocketVerdict},
    },
};

use super::{ENTERS, LEAVES, Origin, Question, TraceFamily, Tracer, frame, tables::Record};
use crate::maps::MapFamily;

/// What the datapath decided at the first place that a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Pass(PassReason),
    Translated,
    Drop(DropReason),
    /// A process's call fails.
    Failed(DropReason),
}

impl Decision {
    /// Whether a rule keeps this client out.
    pub(super) fn is_by_rule(self) -> bool {
        match self {
            Self::Drop(reason) | Self::Failed(reason) => reason.is_by_rule(),
            Self::Pass(_) | Self::Translated => false,
        }
    }
}

/// What became of a packet.
pub(super) struct PacketPath {
    pub(super) decision: Decision,
    /// Its source became the node's.
    pub(super) masquerade: bool,
    /// A process has sent it, and it was translated at the node's device.
    pub(super) is_at_node_device: bool,
    /// Its ends when it leaves; none if it does not, or if an end is not known here.
    pub(super) source: Option<SocketAddr>,
    pub(super) destination: Option<SocketAddr>,
}

/// Watches nothing: the answer says more.
struct Nobody;
impl Observer for Nobody {
    fn observe<F: Wire>(&mut self, _: &Parsed<F>, _: Verdict) {}
}

impl Tracer {
    /// Sends the packet through the node.
    pub(super) fn path<F: TraceFamily>(
        &self,
        question: &Question,
        origin: Origin,
        tables: &mut MemoryTables<Record>,
    ) -> PacketPath {
        let (source, destination) = (question.source, question.destination);
        let mut scratch = Scratch::default();
        let bytes = frame::opening(question.protocol, source, destination);
        let mut packet = MemoryPacket::new(bytes).at_interface(ENTERS);
        let is_at_device = origin == Origin::Host && self.is_at_node_device::<F>(question);
        let entrance = if is_at_device {
            self.node.node_device()
        } else {
            self.node.entrance(question, origin)
        };
        tables.devices.insert(ENTERS, entrance);
        let decision = match origin {
            Origin::Host if !is_at_device && question.protocol == Protocol::Sctp => {
                Decision::Pass(PassReason::OtherProtocol)
            }
            Origin::Host if !is_at_device => match dial::<F>(question, tables) {
                SocketVerdict::Pass => Decision::Pass(PassReason::NotOurs),
                SocketVerdict::Failed(reason) => Decision::Failed(reason),
                SocketVerdict::Translated(address, port) => {
                    let backend = SocketAddr::new(address.into(), port.number());
                    packet.bytes = frame::opening(question.protocol, source, backend);
                    Decision::Translated
                }
            },
            Origin::Host | Origin::Pod | Origin::Outside => {
                let (hook, memory) = (hook(FlowSide::Destination), scratch.memory());
                match pipeline::run(&mut packet, hook, memory, tables, &mut Nobody) {
                    Verdict::Pass(reason) => Decision::Pass(reason),
                    Verdict::Translated(_) => Decision::Translated,
                    Verdict::Drop(reason) => Decision::Drop(reason),
                }
            }
        };
        let is_lost = matches!(decision, Decision::Drop(_) | Decision::Failed(_));
        let mut path = PacketPath {
            decision,
            masquerade: false,
            is_at_node_device: is_at_device,
            source: (!is_lost).then_some(source),
            destination: (!is_lost).then_some(destination),
        };
        if decision != Decision::Translated {
            return path;
        }
        let Some((source, destination)) = ends(&packet) else {
            return path;
        };
        (path.source, path.destination) = (Some(source), Some(destination));
        // What is for the node itself does not leave by a device.
        if self.node.is_own(destination.ip()) {
            return path;
        }
        packet.interface = LEAVES;
        tables
            .devices
            .insert(LEAVES, self.node.exit(destination.ip()));
        let (hook, memory) = (hook(FlowSide::Source), scratch.memory());
        match pipeline::run(&mut packet, hook, memory, tables, &mut Nobody) {
            Verdict::Pass(_) => {}
            Verdict::Translated(translation) => {
                let source = ends(&packet).map(|(source, _)| source);
                // A process's packet may have the node's address as it is.
                path.masquerade = translation == Translation::MasqueradedRequest
                    && source.map(|it| it.ip()) != Some(question.source.ip());
                path.source = source;
            }
            // A process's packet has an address of the node.
            Verdict::Drop(DropReason::NoMasqueradeAddress) if is_at_device => {}
            // Not the node lacks the address, but the question: nobody has said what the node's addresses are.
            Verdict::Drop(DropReason::NoMasqueradeAddress) => {
                (path.masquerade, path.source) = (true, None);
            }
            Verdict::Drop(reason) => {
                path.decision = Decision::Drop(reason);
                (path.source, path.destination) = (None, None);
            }
        }
        path
    }
}

impl Tracer {
    /// Whether packets of processes to this destination are translated at the node's device.
    pub(super) fn is_at_node_device<F: TraceFamily>(&self, question: &Question) -> bool {
        let (at, protocol) = (question.destination, question.protocol.number());
        let key = F::address(at.ip())
            .map(|address| FrontendKey::<F>::new(address, Port::new(at.port()), protocol));
        let frontend = key.and_then(|key| F::of(&self.maps).frontends.get(&key));
        frontend.is_some_and(|it| it.flags.has(FrontendFlags::AT_NODE_DEVICE))
    }
}

/// A process dials: `connect` of a stream, or of a datagram socket.
fn dial<F: TraceFamily>(
    question: &Question,
    tables: &mut MemoryTables<Record>,
) -> SocketVerdict<F> {
    let Some(address) = F::address(question.destination.ip()) else {
        return SocketVerdict::Pass;
    };
    let call = Call {
        cookie: 1,
        protocol: question.protocol.number(),
        address,
        port: Port::new(question.destination.port()),
        bound_device: 0,
    };
    socket::request(tables, &call, Choice::Connection)
}

/// Where the packet passes: no question has an Ethernet header.
fn hook(side: FlowSide) -> Hook {
    Hook {
        side,
        link: Link::Ip,
    }
}

/// The same question, the same chance.
pub(super) fn clock<F: MapFamily>(question: &Question) -> MemoryClock {
    let words = |at: SocketAddr| {
        let address = F::address(at.ip()).unwrap_or(F::UNSPECIFIED);
        u64::from(socket_hash(
            question.protocol.number().into(),
            address.as_ref(),
            at.port(),
        ))
    };
    MemoryClock::new(words(question.source) << 32 | words(question.destination))
}

/// Who sends the packet to whom now.
fn ends(packet: &MemoryPacket) -> Option<(SocketAddr, SocketAddr)> {
    fn of<F: Parse>(packet: &MemoryPacket, offset: usize) -> Option<(SocketAddr, SocketAddr)>
    where
        Tuple<F>: Zeroable,
    {
        let mut parsed = Parsed::<F>::zero();
        F::parse(packet, offset, &mut parsed).ok()?;
        let tuple = parsed.tuple;
        let at = |address: F::Address, port: Port| SocketAddr::new(address.into(), port.number());
        Some((
            at(tuple.source, tuple.source_port),
            at(tuple.destination, tuple.destination_port),
        ))
    }
    match network(packet, Link::Ip).ok()? {
        Network::V4(offset) => of::<V4>(packet, offset),
        Network::V6(offset) => of::<V6>(packet, offset),
    }
}
