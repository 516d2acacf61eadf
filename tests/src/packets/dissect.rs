//! What a packet is, found out slowly and plainly: the parser of the reference, and the judge of all checksums.
//!
//! Nothing here is shared with the datapath but the names of the reasons.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "what cannot happen here is a mistake in the test, and fails it"
)]
pub mod without_ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::PassReason;
use lb_ebpf::bytes::parse::Link;

/// Headers are looked for in the first 1,023 bytes of a packet; an IPv6 chain that says it is longer is malformed.
const REACH: usize = 1023;

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Protocol number of ICMP over IPv4.
pub const ICMP_V4: u8 = 1;
/// Protocol number of ICMP over IPv6.
pub const ICMP_V6: u8 = 58;

/// TCP control bits.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Open.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// Acknowledge.
    pub const ACK: u8 = 16;
}

/// A TCP, UDP or SCTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dissected {
    /// Where the IP header starts.
    pub l3: usize,
    /// Where the transport header starts.
    pub l4: usize,
    /// [`TCP`], [`UDP`] or [`SCTP`].
    pub protocol: u8,
    /// Who sends.
    pub source: SocketAddr,
    /// Who receives.
    pub destination: SocketAddr,
    /// More fragments follow.
    pub is_fragment: bool,
    /// TCP's control bits; for SCTP those that mean the same.
    pub flags: u8,
    /// TCP's sequence number; for SCTP one less than the tag of an INIT or INIT ACK.
    pub sequence: u32,
    /// TCP's acknowledgement number; SCTP's verification tag.
    pub acknowledgement: u32,
}

impl Dissected {
    /// Where the transport checksum is.
    pub fn checksum_at(&self) -> usize {
        self.l4
            + match self.protocol {
                TCP => 16,
                SCTP => 8,
                _ => 6,
            }
    }
    /// Opens a connection.
    pub fn opens(&self) -> bool {
        use flag::{ACK, FIN, RST, SYN};
        self.protocol != UDP && self.flags & (SYN | ACK | FIN | RST) == SYN
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// Takes a packet apart, or says why it is not one for services.
pub fn dissect(bytes: &[u8], link: Link) -> Result<Dissected, PassReason> {
    let (version, l3) = find_network(bytes, link)?;
    let (protocol, l4, is_fragment) = if version == 4 {
        find_transport_v4(bytes, l3)?
    } else {
        find_transport_v6(bytes, l3)?
    };
    let header = match protocol {
        TCP => 20,
        UDP => 8,
        SCTP => 16,
        _ => return Err(PassReason::OtherProtocol),
    };
    let (source, destination) = addresses(bytes, version, l3).ok_or(PassReason::Malformed)?;
    let transport = bytes.get(l4..l4 + header).ok_or(PassReason::Malformed)?;
    let port = |at| half(transport, at).unwrap_or_default();
    let number = |at| word(transport, at).unwrap_or_default();
    let (flags, sequence, acknowledgement) = match protocol {
        TCP => (transport[13], number(4), number(8)),
        SCTP => {
            let tag = word(bytes, l4 + 16).unwrap_or_default();
            (
                flags_of_chunk(transport[12]),
                tag.wrapping_sub(1),
                number(4),
            )
        }
        _ => (0, 0, 0),
    };
    Ok(Dissected {
        l3,
        l4,
        protocol,
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        is_fragment,
        flags,
        sequence,
        acknowledgement,
    })
}

/// What a TCP segment would say in place of an SCTP packet that begins with this chunk.
fn flags_of_chunk(chunk: u8) -> u8 {
    use flag::{ACK, FIN, RST, SYN};
    match chunk {
        1 => SYN,
        2 => SYN | ACK,
        6 => RST | ACK,
        7 | 8 => FIN | ACK,
        _ => ACK,
    }
}

fn find_network(bytes: &[u8], link: Link) -> Result<(u8, usize), PassReason> {
    if link == Link::Ip {
        let first = bytes.first().ok_or(PassReason::Malformed)?;
        return match first >> 4 {
            version @ (4 | 6) => Ok((version, 0)),
            _ => Err(PassReason::NotIp),
        };
    }
    let mut at = 12;
    let mut tags = 0;
    loop {
        let ether_type = half(bytes, at).ok_or(PassReason::Malformed)?;
        at += 2;
        match ether_type {
            0x0800 => return Ok((4, at)),
            0x86dd => return Ok((6, at)),
            0x8100 | 0x88a8 if tags < 2 => {
                tags += 1;
                at += 2;
            }
            _ => return Err(PassReason::NotIp),
        }
    }
}

fn find_transport_v4(bytes: &[u8], l3: usize) -> Result<(u8, usize, bool), PassReason> {
    let header = bytes.get(l3..l3 + 20).ok_or(PassReason::Malformed)?;
    let words = usize::from(header[0] & 15);
    if header[0] >> 4 != 4 || words < 5 {
        return Err(PassReason::Malformed);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & 0x1fff != 0 {
        return Err(PassReason::LaterFragment);
    }
    Ok((header[9], l3 + words * 4, fragment & 0x2000 != 0))
}

fn find_transport_v6(bytes: &[u8], l3: usize) -> Result<(u8, usize, bool), PassReason> {
    let header = bytes.get(l3..l3 + 40).ok_or(PassReason::Malformed)?;
    if header[0] >> 4 != 6 {
        return Err(PassReason::Malformed);
    }
    let (mut kind, mut at, mut is_fragment) = (header[6], l3 + 40, false);
    for _ in 0..6 {
        let length = match kind {
            0 | 43 | 60 | 135 => 8 + 8 * usize::from(length_of(bytes, at)?),
            51 => 8 + 4 * usize::from(length_of(bytes, at)?),
            44 => 8,
            _ => break,
        };
        if kind == 44 {
            if bytes.len() < at + 8 {
                return Err(PassReason::Malformed);
            }
            let fragment = half(bytes, at + 2).unwrap_or_default();
            if fragment & 0xfff8 != 0 {
                return Err(PassReason::LaterFragment);
            }
            is_fragment |= fragment & 1 != 0;
        }
        kind = bytes[at];
        at += length;
        if at > REACH {
            return Err(PassReason::Malformed);
        }
    }
    Ok((kind, at, is_fragment))
}

fn length_of(bytes: &[u8], at: usize) -> Result<u8, PassReason> {
    bytes.get(at + 1).copied().ok_or(PassReason::Malformed)
}

fn addresses(bytes: &[u8], version: u8, l3: usize) -> Option<(IpAddr, IpAddr)> {
    if version == 4 {
        let at = |at: usize| <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok();
        let (source, destination) = (at(l3 + 12)?, at(l3 + 16)?);
        Some((
            Ipv4Addr::from(source).into(),
            Ipv4Addr::from(destination).into(),
        ))
    } else {
        let at = |at: usize| <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok();
        let (source, destination) = (at(l3 + 8)?, at(l3 + 24)?);
        Some((
            Ipv6Addr::from(source).into(),
            Ipv6Addr::from(destination).into(),
        ))
    }
}

/// The Internet checksum of some bytes (RFC 1071): the number that belongs in a field which was zero.
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or_default());
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// The `CRC32c` of an SCTP packet whatever stands in its field, as it belongs there (RFC 9260, appendix A).
pub fn crc32c(packet: &[u8]) -> [u8; 4] {
    let mut register = u32::MAX;
    for (at, byte) in packet.iter().enumerate() {
        register ^= if (8..12).contains(&at) {
            0
        } else {
            u32::from(*byte)
        };
        for _ in 0..8 {
            let is_odd = register & 1 == 1;
            register >>= 1;
            register ^= if is_odd { 0x82f6_3b78 } else { 0 };
        }
    }
    (!register).to_le_bytes()
}

/// The pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(u32::from(protocol).to_be_bytes());
    bytes.extend(u32::try_from(length).unwrap_or_default().to_be_bytes());
    bytes
}

/// The transport segment: by the IP header's length, whatever is padded behind it. `None`: the frame ends before.
pub fn segment<'a>(bytes: &'a [u8], packet: &Dissected) -> Option<&'a [u8]> {
    let end = packet.l3
        + if packet.source.is_ipv4() {
            usize::from(half(bytes, packet.l3 + 2)?)
        } else {
            40 + usize::from(half(bytes, packet.l3 + 4)?)
        };
    bytes.get(packet.l4..end)
}

/// Whether the IPv4 header's checksum is right; IPv6 has none.
pub fn header_checksum_holds(bytes: &[u8], packet: &Dissected) -> bool {
    if packet.source.is_ipv6() {
        return true;
    }
    let length = usize::from(bytes[packet.l3] & 15) * 4;
    internet_checksum(&[&bytes[packet.l3..packet.l3 + length]]) == 0
}

/// Whether the transport checksum is right: from scratch, over the whole segment.
pub fn transport_checksum_holds(bytes: &[u8], packet: &Dissected) -> bool {
    let Some(segment) = segment(bytes, packet) else {
        return false;
    };
    let field = half(bytes, packet.checksum_at());
    if packet.protocol == UDP && field == Some(0) {
        return packet.source.is_ipv4();
    }
    if packet.protocol == SCTP {
        return segment.get(8..12) == Some(&crc32c(segment));
    }
    let (source, destination) = (packet.source.ip(), packet.destination.ip());
    let pseudo = pseudo_header(source, destination, packet.protocol, segment.len());
    internet_checksum(&[&pseudo, segment]) == 0
}

/// Panics unless every checksum of a TCP or UDP packet is right.
#[track_caller]
pub fn assert_checksums(bytes: &[u8], link: Link) {
    let packet = dissect(bytes, link).expect("a TCP or UDP packet");
    assert!(
        header_checksum_holds(bytes, &packet),
        "IP header checksum of {packet:?}: {bytes:02x?}"
    );
    assert!(
        packet.is_fragment || transport_checksum_holds(bytes, &packet),
        "transport checksum of {packet:?}: {bytes:02x?}"
    );
}
