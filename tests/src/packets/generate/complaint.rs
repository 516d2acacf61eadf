//! ICMP messages about packets.
use std::net::{IpAddr, SocketAddr};

use lb_ebpf::bytes::parse::Link;

use super::{cluster::Hook, frame::Shape, frame::Way};
use crate::packets::dissect::{ICMP_V4, ICMP_V6};
use crate::packets::packet_builder::{eth, ip};

/// An ICMP message that quotes a packet.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// Where it is seen.
    pub hook: Hook,
    /// Whose packet it quotes.
    pub way: Way,
    /// The packet goes the other way round.
    pub is_turned: bool,
    /// A router sends it, not the packet's receiver.
    pub by_router: bool,
    /// It has an Ethernet header.
    pub is_ethernet: bool,
    /// Which message: errors, a redirect over IPv4, an echo.
    pub kind: usize,
    /// How the packet looks, and how much of it is quoted.
    pub quoted: Shape,
}

/// Types of messages, errors and others.
const KINDS_V4: [u8; 6] = [3, 3, 11, 12, 5, 8];
const KINDS_V6: [u8; 6] = [1, 2, 3, 4, 1, 128];

impl Complaint {
    /// How the device frames it.
    pub fn link(&self) -> Link {
        if self.is_ethernet {
            Link::Ethernet
        } else {
            Link::Ip
        }
    }
    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let (protocol, mut source, mut destination) = self.way.ends();
        if self.is_turned {
            (source, destination) = (destination, source);
        }
        let shape = Shape {
            is_ethernet: false,
            vlans: 0,
            padding: 0,
            ..self.quoted.clone()
        };
        let quoted = shape.bytes(protocol, source, destination);
        let from = if self.by_router {
            let router: IpAddr = if source.is_ipv6() {
                [0xfd, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into()
            } else {
                [10, 99, 0, 1].into()
            };
            SocketAddr::new(router, 0)
        } else {
            destination
        };
        let (protocol, kinds) = if source.is_ipv6() {
            (ICMP_V6, KINDS_V6)
        } else {
            (ICMP_V4, KINDS_V4)
        };
        let builder = if self.is_ethernet { eth() } else { ip() };
        builder
            .between(protocol, from, source)
            .icmp(kinds[self.kind % kinds.len()], 1, [0; 4])
            .payload(&quoted)
            .build()
    }
}
