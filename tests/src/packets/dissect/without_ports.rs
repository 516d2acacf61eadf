//! Packets that have no ports of their own: pieces of datagrams, and ICMP messages that quote other packets.
use std::net::{IpAddr, SocketAddr};

use lb_ebpf::bytes::parse::Link;

use super::{
    Dissected, ICMP_V4, ICMP_V6, SCTP, TCP, UDP, addresses, find_network, find_transport_v4,
    find_transport_v6, half, internet_checksum, length_of, pseudo_header, word,
};

/// A piece of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where the IP header starts.
    pub l3: usize,
    /// What all its pieces have in common.
    pub datagram: Datagram,
}

/// What tells datagrams apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// Its identification.
    pub identification: u32,
    /// The protocol; over IPv6 it does not count.
    pub protocol: u8,
}

/// The datagram of which a packet is a piece, the first one or another.
pub fn piece(bytes: &[u8], link: Link) -> Option<Piece> {
    let (version, l3) = find_network(bytes, link).ok()?;
    let (source, destination) = addresses(bytes, version, l3)?;
    let (identification, protocol) = if version == 4 {
        (u32::from(half(bytes, l3 + 4)?), *bytes.get(l3 + 9)?)
    } else {
        (identification_v6(bytes, l3)?, 0)
    };
    let datagram = Datagram {
        source,
        destination,
        identification,
        protocol,
    };
    Some(Piece { l3, datagram })
}

/// The identification in the last fragment header before what a piece begins with.
fn identification_v6(bytes: &[u8], l3: usize) -> Option<u32> {
    let (mut kind, mut at, mut found) = (*bytes.get(l3 + 6)?, l3 + 40, None);
    for _ in 0..6 {
        let length = match kind {
            0 | 43 | 60 | 135 => 8 + 8 * usize::from(length_of(bytes, at).ok()?),
            51 => 8 + 4 * usize::from(length_of(bytes, at).ok()?),
            44 => 8,
            _ => break,
        };
        if kind == 44 {
            found = word(bytes, at + 4);
            if half(bytes, at + 2)? & 0xfff8 != 0 {
                break;
            }
        }
        kind = *bytes.get(at)?;
        at += length;
    }
    found
}

/// An ICMP message about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where the IP header starts.
    pub l3: usize,
    /// Where the ICMP header starts.
    pub icmp: usize,
    /// Where the message ends.
    pub end: usize,
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// It is a redirect, not an error.
    pub is_redirect: bool,
    /// The packet it quotes; of that the control bits are not read.
    pub quoted: Dissected,
}

/// For whom a packet is that has no ports and speaks of no other packet: a ping, or no protocol that services know.
pub fn portless(bytes: &[u8], link: Link) -> Option<(IpAddr, bool)> {
    let (version, l3) = find_network(bytes, link).ok()?;
    let (_, destination) = addresses(bytes, version, l3)?;
    // All 8 bytes of a ping's header must be there.
    let is_echo = |icmp: usize, kind| bytes.get(icmp + 7).is_some() && bytes[icmp] == kind;
    match (version, transport(bytes, version, l3)) {
        (4, Some((ICMP_V4, icmp, _))) => is_echo(icmp, 8).then_some((destination, true)),
        (6, Some((ICMP_V6, icmp, _))) => is_echo(icmp, 128).then_some((destination, true)),
        _ => Some((destination, false)),
    }
}

/// An error, or over IPv4 a redirect, about a TCP, UDP or SCTP packet of which at least 8 bytes of transport header are there.
pub fn complaint(bytes: &[u8], link: Link) -> Option<Complaint> {
    let (version, l3) = find_network(bytes, link).ok()?;
    let (source, destination) = addresses(bytes, version, l3)?;
    let (protocol, icmp, _) = transport(bytes, version, l3)?;
    let kind = *bytes.get(icmp)?;
    let is_redirect = match (protocol, version) {
        (ICMP_V4, 4) if [3, 11, 12].contains(&kind) => false,
        (ICMP_V4, 4) if kind == 5 => true,
        (ICMP_V6, 6) if (1..5).contains(&kind) => false,
        _ => return None,
    };
    let length = if version == 4 {
        usize::from(half(bytes, l3 + 2)?)
    } else {
        40 + usize::from(half(bytes, l3 + 4)?)
    };
    let quote = icmp + 8;
    let (protocol, l4, is_fragment) = transport(bytes, version, quote)?;
    if ![TCP, UDP, SCTP].contains(&protocol) || bytes.len() < l4 + 8 {
        return None;
    }
    let (from, to) = addresses(bytes, version, quote)?;
    Some(Complaint {
        l3,
        icmp,
        end: l3 + length,
        source,
        destination,
        is_redirect,
        quoted: Dissected {
            l3: quote,
            l4,
            protocol,
            source: SocketAddr::new(from, half(bytes, l4)?),
            destination: SocketAddr::new(to, half(bytes, l4 + 2)?),
            is_fragment,
            flags: 0,
            sequence: 0,
            acknowledgement: 0,
        },
    })
}

fn transport(bytes: &[u8], version: u8, l3: usize) -> Option<(u8, usize, bool)> {
    if version == 4 {
        find_transport_v4(bytes, l3).ok()
    } else {
        find_transport_v6(bytes, l3).ok()
    }
}

/// The number that belongs in an ICMP message's checksum field; `None`: the frame ends before the message.
pub fn icmp_checksum(bytes: &[u8], message: &Complaint) -> Option<u16> {
    let mut content = bytes.get(message.icmp..message.end)?.to_vec();
    content.get_mut(2..4)?.fill(0);
    let pseudo = match message.source {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(_) => pseudo_header(message.source, message.destination, ICMP_V6, content.len()),
    };
    Some(internet_checksum(&[&pseudo, &content]))
}
