//! From who and how to bytes.
use std::net::SocketAddr;

use lb_ebpf::bytes::parse::Link;

use super::cluster::{Hook, SERVICES, TARGET_PORT, client, frontend, node, pod};
use crate::packets::dissect::flag::{ACK, FIN, SYN};
use crate::packets::packet_builder::{PacketBuilder, eth, ip};

/// Who sends to whom, of which service.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// A client dials a service.
    Request {
        service: usize,
        client: usize,
        port: u16,
    },
    /// A pod answers a client.
    Reply {
        service: usize,
        pod: usize,
        client: usize,
        port: u16,
    },
    /// A client dials a pod itself, or its translated request goes on.
    Direct {
        service: usize,
        pod: usize,
        client: usize,
        port: u16,
    },
    /// A pod answers the node.
    ToNode {
        service: usize,
        pod: usize,
        port: u16,
    },
    /// A client dials a port of a service's address that is not the service's.
    WrongPort {
        service: usize,
        client: usize,
        port: u16,
    },
}

impl Way {
    /// The hook where such packets are for us.
    pub fn hook(&self) -> Hook {
        match self {
            Self::Request { .. } | Self::ToNode { .. } | Self::WrongPort { .. } => Hook::Ingress,
            Self::Reply { .. } | Self::Direct { .. } => Hook::Egress,
        }
    }
    /// The request of the same conversation.
    #[must_use]
    pub fn request(&self) -> Self {
        match *self {
            Self::Request {
                service,
                client,
                port,
            }
            | Self::Reply {
                service,
                client,
                port,
                ..
            }
            | Self::Direct {
                service,
                client,
                port,
                ..
            }
            | Self::WrongPort {
                service,
                client,
                port,
            } => Self::Request {
                service,
                client,
                port,
            },
            // Under a masquerade that keeps ports.
            Self::ToNode { service, port, .. } => Self::Request {
                service,
                client: usize::from(port),
                port,
            },
        }
    }
    /// Protocol, source and destination.
    pub fn ends(&self) -> (u8, SocketAddr, SocketAddr) {
        let (Self::Request { service, .. }
        | Self::Reply { service, .. }
        | Self::Direct { service, .. }
        | Self::ToNode { service, .. }
        | Self::WrongPort { service, .. }) = *self;
        let kind = SERVICES[service];
        let is_v6 = kind.is_v6;
        let at_client = |index, port| SocketAddr::new(client(is_v6, index), 20_000 + port);
        let at_pod = |index| SocketAddr::new(pod(is_v6, index), TARGET_PORT);
        let (source, destination) = match *self {
            Self::Request { client, port, .. } => (at_client(client, port), frontend(service)),
            Self::Reply {
                pod, client, port, ..
            } => (at_pod(pod), at_client(client, port)),
            Self::Direct {
                pod, client, port, ..
            } => (at_client(client, port), at_pod(pod)),
            Self::ToNode { pod, port, .. } => {
                (at_pod(pod), SocketAddr::new(node(is_v6), 20_000 + port))
            }
            Self::WrongPort { client, port, .. } => {
                let mut wrong = frontend(service);
                wrong.set_port(81);
                (at_client(client, port), wrong)
            }
        };
        (kind.protocol, source, destination)
    }
}

/// Which part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    None,
    /// The first part.
    First,
    /// A later part.
    Later,
    /// All of it, and a fragment header says so (IPv6).
    Atomic,
}

/// How a packet looks besides its ends.
#[derive(Clone, Debug)]
pub struct Shape {
    /// It has an Ethernet header.
    pub is_ethernet: bool,
    /// So many VLAN tags.
    pub vlans: usize,
    /// TCP's control bits.
    pub flags: u8,
    /// TCP's sequence number.
    pub sequence: u32,
    /// TCP's acknowledgement number.
    pub acknowledgement: u32,
    /// The data.
    pub payload: Vec<u8>,
    /// Bytes of IPv4 options.
    pub options: usize,
    /// IPv6 extension headers: kind and least length.
    pub extensions: Vec<(u8, usize)>,
    /// Which part of a datagram.
    pub fragment: Fragment,
    /// Only so many bytes are directly readable.
    pub linear: Option<usize>,
    /// Only so many bytes are there.
    pub cut: Option<usize>,
    /// The byte here is changed so.
    pub flip: Option<(usize, u8)>,
    /// UDP without a checksum.
    pub without_checksum: bool,
    /// Bytes behind the datagram.
    pub padding: usize,
}

impl Shape {
    /// A plain Ethernet frame with these TCP control bits.
    pub fn plain(flags: u8) -> Self {
        Self {
            is_ethernet: true,
            vlans: 0,
            flags,
            sequence: 0,
            acknowledgement: 1,
            payload: b"payload".to_vec(),
            options: 0,
            extensions: Vec::new(),
            fragment: Fragment::None,
            linear: None,
            cut: None,
            flip: None,
            without_checksum: false,
            padding: 0,
        }
    }
    /// A first piece and a later one of a datagram of this look, in this order or the other.
    pub fn pieces(&self, in_order: bool) -> [Self; 2] {
        let piece = |fragment| Self {
            fragment,
            ..self.clone()
        };
        let mut pieces = [piece(Fragment::First), piece(Fragment::Later)];
        if !in_order {
            pieces.reverse();
        }
        pieces
    }
    /// How the device frames it.
    pub fn link(&self) -> Link {
        if self.is_ethernet {
            Link::Ethernet
        } else {
            Link::Ip
        }
    }
    /// The bytes of a packet of this look from one end to the other.
    pub fn bytes(&self, protocol: u8, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut builder = if self.is_ethernet { eth() } else { ip() };
        for tag in 0..self.vlans {
            builder = if tag == 0 && self.vlans == 2 {
                builder.service_vlan(5)
            } else {
                builder.vlan(6)
            };
        }
        builder = builder
            .between(protocol, source, destination)
            .flags(self.flags)
            .sequence(self.sequence)
            .acknowledge(self.acknowledgement)
            .payload(&self.payload)
            .padding(self.padding);
        if self.without_checksum && source.is_ipv4() {
            builder = builder.without_checksum();
        }
        builder = self.network(builder, source.is_ipv6());
        let mut bytes = builder.build();
        if let Some((at, bits)) = self.flip
            && let Some(byte) = bytes.get_mut(at)
        {
            *byte ^= bits;
        }
        bytes.truncate(self.cut.unwrap_or(usize::MAX));
        bytes
    }
    fn network(&self, mut builder: PacketBuilder, is_v6: bool) -> PacketBuilder {
        if !is_v6 {
            return match self.fragment {
                Fragment::None | Fragment::Atomic => builder,
                Fragment::First => builder.fragment(0, true),
                Fragment::Later => builder.fragment(5, true),
            }
            .options(&vec![1; self.options]);
        }
        for (kind, bytes) in &self.extensions {
            builder = if *kind == 44 {
                builder.fragment_extension(0, bytes % 2 == 0)
            } else {
                builder.extension(*kind, *bytes)
            };
        }
        match self.fragment {
            Fragment::None => builder,
            Fragment::First => builder.fragment_extension(0, true),
            Fragment::Later => builder.fragment_extension(5, true),
            Fragment::Atomic => builder.fragment_extension(0, false),
        }
    }
}

/// The packets of a whole TCP conversation, the client's and the pod's in turn.
pub fn conversation() -> [Shape; 7] {
    const CLIENT: u32 = 500;
    const POD: u32 = 900;
    [
        (SYN, CLIENT, 0),
        (SYN | ACK, POD, CLIENT + 1),
        (ACK, CLIENT + 1, POD + 1),
        (ACK, POD + 1, CLIENT + 1),
        (FIN | ACK, CLIENT + 1, POD + 1),
        (FIN | ACK, POD + 1, CLIENT + 2),
        (ACK, CLIENT + 2, POD + 2),
    ]
    .map(|(flags, sequence, acknowledgement)| Shape {
        sequence,
        acknowledgement,
        ..Shape::plain(flags)
    })
}
