//! From bytes to a tuple, and the offsets that a rewrite needs.
use lb_common::{PassReason, Port, Protocol, V4, V6};

use crate::bytes::{
    headers::{
        EtherType, EthernetHeader, ExtensionHeader, FragmentHeader, IpHeader, Ipv4Header,
        Ipv6Header, Ports, SctpHeader, TcpFlags, TcpHeader, UdpHeader, VlanTag, Wire, next_header,
    },
    packet::Packet,
    parsed::{OFFSET_MASK, Parsed, ParsedMemory},
};

/// How many IPv6 extension headers are walked over; more than RFC 8200 section 4.1 recommends to send.
const EXTENSION_HEADERS: usize = 6;

/// How a device frames its packets: a property of the attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header, and VLAN tags that lie in the frame.
    Ethernet,
    /// Packets start at the IP header (tun, ipip, wireguard).
    Ip,
}

/// An IP version and where its header starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 at this offset.
    V4(usize),
    /// IPv6 at this offset.
    V6(usize),
}

/// Why there is no tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The packet is not ours.
    NotOurs(PassReason),
    /// It is ICMP, or no protocol that services know: there are addresses, and the offsets of both headers, but no ports.
    Portless,
    /// It is a later fragment: there are addresses and the offset of the IP header, but no ports.
    LaterFragment,
    /// A header lies beyond the directly readable part: pull and try again, or the packet ends there.
    OutOfReach,
}

/// Finds the IP header.
#[inline(always)]
pub fn network<P: Packet>(packet: &P, link: Link) -> Result<Network, ParseError> {
    match link {
        Link::Ethernet => ethernet(packet),
        Link::Ip => match ip_version(packet).ok_or(ParseError::OutOfReach)? {
            4 => Ok(Network::V4(0)),
            6 => Ok(Network::V6(0)),
            _ => Err(ParseError::NotOurs(PassReason::NotIp)),
        },
    }
}

/// The first nibble. Both headers have 20 bytes at least; a check for one byte alone, "start < end", would tell the
/// verifier nothing.
#[inline(always)]
fn ip_version<P: Packet>(packet: &P) -> Option<u8> {
    Some(packet.header::<Ipv4Header>(0)?.version_length >> 4)
}

#[inline(always)]
fn ethernet<P: Packet>(packet: &P) -> Result<Network, ParseError> {
    let mut ether_type = packet
        .header::<EthernetHeader>(0)
        .ok_or(ParseError::OutOfReach)?
        .ether_type;
    let mut offset = size_of::<EthernetHeader>();
    for _ in 0..2 {
        if ether_type != EtherType::VLAN && ether_type != EtherType::SERVICE_VLAN {
            break;
        }
        ether_type = packet
            .header::<VlanTag>(offset)
            .ok_or(ParseError::OutOfReach)?
            .ether_type;
        offset += size_of::<VlanTag>();
    }
    match ether_type {
        EtherType::IPV4 => Ok(Network::V4(offset)),
        EtherType::IPV6 => Ok(Network::V6(offset)),
        _ => Err(ParseError::NotOurs(PassReason::NotIp)),
    }
}

/// A packet whose extension headers can be walked over.
pub trait Extensions: Packet {
    /// [`skip_extensions`].
    fn skip_extensions<M: ParsedMemory<V6>>(&self, memory: &mut M) -> Result<(), ParseError>;
}

/// Walks from the IP header to the transport header: what differs between the families.
pub trait Parse: Wire {
    /// Fills in addresses and gives the offset and the protocol of what follows the IP headers.
    fn walk<P: Extensions, M: ParsedMemory<Self>>(
        packet: &P,
        l3_offset: usize,
        memory: &mut M,
    ) -> Result<(usize, u8), ParseError>;

    /// Fills `memory` from the IP header at `l3_offset` on; after an error it holds what that says, or nothing.
    #[inline(always)]
    fn parse<P: Extensions, M: ParsedMemory<Self>>(
        packet: &P,
        l3_offset: usize,
        memory: &mut M,
    ) -> Result<(), ParseError> {
        let (l4_offset, protocol) = Self::walk(packet, l3_offset, memory)?;
        finish(packet, l3_offset, l4_offset, protocol, memory.parsed_mut())
    }

    /// The same for a packet that another one quotes: of its transport header at least 8 bytes are there (RFC 792,
    /// RFC 4443 section 2.4).
    #[inline(always)]
    fn parse_quote<P: Extensions, M: ParsedMemory<Self>>(
        packet: &P,
        l3_offset: usize,
        memory: &mut M,
    ) -> Result<(), ParseError> {
        let (l4_offset, protocol) = Self::walk(packet, l3_offset, memory)?;
        finish_quote(packet, l3_offset, l4_offset, protocol, memory.parsed_mut())
    }
}

impl Parse for V4 {
    #[inline(always)]
    fn walk<P: Extensions, M: ParsedMemory<Self>>(
        packet: &P,
        l3_offset: usize,
        memory: &mut M,
    ) -> Result<(usize, u8), ParseError> {
        let parsed = memory.parsed_mut();
        let ip = packet
            .header::<Ipv4Header>(l3_offset)
            .ok_or(ParseError::OutOfReach)?;
        if ip.version_length >> 4 != 4 || ip.length() < size_of::<Ipv4Header>() {
            return Err(ParseError::NotOurs(PassReason::Malformed));
        }
        parsed.tuple.source = ip.source();
        parsed.tuple.destination = ip.destination();
        parsed.fragment = u8::from(ip.is_fragment());
        if ip.is_later_fragment() {
            parsed.set_l3_offset(l3_offset);
            parsed.set_portless(ip.protocol);
            return Err(ParseError::LaterFragment);
        }
        Ok((l3_offset + ip.length(), ip.protocol))
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn walk<P: Extensions, M: ParsedMemory<Self>>(
        packet: &P,
        l3_offset: usize,
        memory: &mut M,
    ) -> Result<(usize, u8), ParseError> {
        let ip = packet
            .header::<Ipv6Header>(l3_offset)
            .ok_or(ParseError::OutOfReach)?;
        if ip.version_class_flow.first().map(|byte| byte >> 4) != Some(6) {
            return Err(ParseError::NotOurs(PassReason::Malformed));
        }
        let parsed = memory.parsed_mut();
        parsed.tuple.source = ip.source();
        parsed.tuple.destination = ip.destination();
        parsed.fragment = 0;
        let l4_offset = l3_offset + size_of::<Ipv6Header>();
        let protocol = ip.next_header;
        if protocol == Protocol::Tcp.number() || protocol == Protocol::Udp.number() {
            return Ok((l4_offset, protocol));
        }
        parsed.tuple.protocol = u32::from(protocol);
        parsed.set_l3_offset(l3_offset);
        parsed.set_l4_offset(l4_offset);
        packet.skip_extensions(memory)?;
        let parsed = memory.parsed_mut();
        Ok((parsed.l4_offset(), parsed.tuple.protocol_number()))
    }
}

/// Moves `parsed` from the first header after the IPv6 header, of type `parsed.tuple.protocol` and at its `l4_offset`, over
/// the extension headers that may stand before TCP or UDP.
#[inline(always)]
pub fn skip_extensions<P: Packet + ?Sized>(
    packet: &P,
    parsed: &mut Parsed<V6>,
) -> Result<(), ParseError> {
    for _ in 0..EXTENSION_HEADERS {
        let (protocol, offset) = (parsed.tuple.protocol_number(), parsed.l4_offset());
        match protocol {
            next_header::HOP_BY_HOP
            | next_header::ROUTING
            | next_header::DESTINATION
            | next_header::MOBILITY
            | next_header::AUTHENTICATION => {}
            next_header::FRAGMENT => {
                let fragment = packet
                    .header::<FragmentHeader>(offset)
                    .ok_or(ParseError::OutOfReach)?;
                parsed.identification = u32::from_ne_bytes(fragment.identification);
                if fragment.is_later() {
                    parsed.set_portless(fragment.next_header);
                    return Err(ParseError::LaterFragment);
                }
                parsed.fragment |= u8::from(!fragment.is_atomic());
            }
            _ => return Ok(()),
        }
        let header = packet
            .header::<ExtensionHeader>(offset)
            .ok_or(ParseError::OutOfReach)?;
        let next = offset + header.bytes(protocol);
        if next > OFFSET_MASK {
            return Err(ParseError::NotOurs(PassReason::Malformed));
        }
        parsed.set_l4_offset(next);
        parsed.tuple.protocol = u32::from(header.next_header);
    }
    Ok(())
}

/// Reads ports and flags, and writes all there is to know.
#[inline(always)]
fn finish<F: Wire, P: Packet>(
    packet: &P,
    l3_offset: usize,
    l4_offset: usize,
    protocol: u8,
    parsed: &mut Parsed<F>,
) -> Result<(), ParseError> {
    if l4_offset > OFFSET_MASK {
        return Err(ParseError::NotOurs(PassReason::Malformed));
    }
    let (ports, tcp_flags): (Ports, TcpFlags) = if protocol == Protocol::Tcp.number() {
        let tcp = packet
            .header::<TcpHeader>(l4_offset)
            .ok_or(ParseError::OutOfReach)?;
        (tcp.ports, tcp.flags)
    } else if protocol == Protocol::Udp.number() {
        let udp = packet
            .header::<UdpHeader>(l4_offset)
            .ok_or(ParseError::OutOfReach)?;
        (udp.ports, TcpFlags::default())
    } else if protocol == Protocol::Sctp.number() {
        let sctp = packet
            .header::<SctpHeader>(l4_offset)
            .ok_or(ParseError::OutOfReach)?;
        (sctp.common.ports, TcpFlags::of_chunk(sctp.chunk))
    } else {
        parsed.set_l3_offset(l3_offset);
        parsed.set_l4_offset(l4_offset);
        parsed.set_portless(protocol);
        return Err(ParseError::Portless);
    };
    note(l3_offset, l4_offset, protocol, ports, parsed);
    parsed.tcp_flags = tcp_flags;
    Ok(())
}

/// The same where only the first 8 bytes of the transport header are asked for.
#[inline(always)]
fn finish_quote<F: Wire, P: Packet>(
    packet: &P,
    l3_offset: usize,
    l4_offset: usize,
    protocol: u8,
    parsed: &mut Parsed<F>,
) -> Result<(), ParseError> {
    if l4_offset > OFFSET_MASK {
        return Err(ParseError::NotOurs(PassReason::Malformed));
    }
    if Protocol::from_number(protocol).is_none() {
        return Err(ParseError::NotOurs(PassReason::OtherProtocol));
    }
    let ports = packet
        .header::<UdpHeader>(l4_offset)
        .ok_or(ParseError::OutOfReach)?
        .ports;
    note(l3_offset, l4_offset, protocol, ports, parsed);
    Ok(())
}

#[inline(always)]
fn note<F: Wire>(
    l3_offset: usize,
    l4_offset: usize,
    protocol: u8,
    ports: Ports,
    parsed: &mut Parsed<F>,
) {
    parsed.tuple.source_port = Port::from_wire(ports.source);
    parsed.tuple.destination_port = Port::from_wire(ports.destination);
    parsed.tuple.protocol = u32::from(protocol);
    parsed.set_l3_offset(l3_offset);
    parsed.set_l4_offset(l4_offset);
}
