//! TCP resets: the answer to a segment of a connection that nobody knows (RFC 9293, sections 3.5.2 and 3.10.7.1). They come
//! from the frontend that was dialled, so they are whole datagrams that raw sockets send as they are.
use std::{
    borrow::Borrow,
    io,
    net::{IpAddr, SocketAddr},
};

use lb_common::{Ipv4Address, Ipv6Address, Protocol, Refusal};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};

/// TCP's control bits.
const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// Bytes of a TCP header without options.
const TCP_LENGTH: u8 = 20;
/// Where its checksum stands.
const TCP_CHECKSUM: usize = 16;

/// `IPPROTO_RAW`: datagrams come with their IP header (raw(7)).
const RAW: i32 = 255;

/// Raw sockets that send whole datagrams.
pub(super) struct Sockets {
    v4: Socket,
    /// None where the node has no IPv6.
    v6: Option<Socket>,
}

impl Sockets {
    pub(super) fn open() -> io::Result<Self> {
        let open = |domain| {
            let socket = Socket::new(domain, Type::RAW, Some(SocketProtocol::from(RAW)))?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        Ok(Self {
            v4: open(Domain::IPV4)?,
            v6: open(Domain::IPV6).ok(),
        })
    }

    /// Resets the connection of the segment that was refused.
    pub(super) fn send(&self, refusal: &Refusal) -> io::Result<()> {
        let Some(datagram) = datagram(refusal) else {
            return Ok(());
        };
        let (sender, _) = ends(refusal);
        let socket = match sender {
            IpAddr::V4(_) => Some(&self.v4),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        let to = SocketAddr::new(sender, 0).into();
        socket.map_or(Ok(()), |socket| socket.send_to(&datagram, &to).map(drop))
    }
}

/// Who sent the refused packet, and to whom.
pub(super) fn ends(refusal: &Refusal) -> (IpAddr, IpAddr) {
    let address = |words: [u32; 4]| -> IpAddr {
        let [first, ..] = words;
        if refusal.version == 4 {
            Ipv4Address([first]).into()
        } else {
            Ipv6Address(words).into()
        }
    };
    (address(refusal.source), address(refusal.destination))
}

/// The reset: IP header and TCP header. None if the refused packet is not TCP, or a reset itself.
fn datagram(refusal: &Refusal) -> Option<Vec<u8>> {
    if refusal.protocol != Protocol::Tcp.number() {
        return None;
    }
    let [
        port_a,
        port_b,
        to_a,
        to_b,
        s0,
        s1,
        s2,
        s3,
        a0,
        a1,
        a2,
        a3,
        offset,
        flags,
        ..,
    ] = refusal.transport;
    if flags & RST != 0 {
        return None;
    }
    let (sequence, acknowledgement, flags) = if flags & ACK != 0 {
        ([a0, a1, a2, a3], [0; 4], RST)
    } else {
        let header = u32::from(offset >> 4) * 4;
        let data = refusal.length.saturating_sub(header);
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let next = u32::from_be_bytes([s0, s1, s2, s3]).wrapping_add(data + controls);
        ([0; 4], next.to_be_bytes(), RST | ACK)
    };
    let mut tcp = vec![to_a, to_b, port_a, port_b];
    tcp.extend(sequence);
    tcp.extend(acknowledgement);
    tcp.extend([(TCP_LENGTH / 4) << 4, flags, 0, 0, 0, 0, 0, 0]);
    let (sender, dialled) = ends(refusal);
    let mut pseudo = octets(dialled);
    pseudo.extend(octets(sender));
    pseudo.extend([0, refusal.protocol, 0, TCP_LENGTH]);
    let sum = checksum(pseudo.iter().chain(&tcp));
    tcp.get_mut(TCP_CHECKSUM..TCP_CHECKSUM + 2)?
        .copy_from_slice(&sum);

    let mut datagram = if refusal.version == 4 {
        // Length, identification and checksum are the kernel's to fill (raw(7)).
        vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, refusal.protocol, 0, 0]
    } else {
        vec![0x60, 0, 0, 0, 0, TCP_LENGTH, refusal.protocol, 64]
    };
    datagram.extend(octets(dialled));
    datagram.extend(octets(sender));
    datagram.extend(tcp);
    Some(datagram)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: impl Iterator<Item = impl Borrow<u8>>) -> [u8; 2] {
    let mut sum = 0u32;
    for (nth, byte) in bytes.enumerate() {
        sum += u32::from(*byte.borrow()) << if nth % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use lb_common::RefusalKind;

    use super::*;

    fn refused(flags: u8, length: u32) -> Refusal {
        Refusal {
            source: [Ipv4Address::from([10, 244, 1, 9]).0[0], 0, 0, 0],
            destination: [Ipv4Address::from([10, 96, 0, 1]).0[0], 0, 0, 0],
            transport: [0x9c, 0x40, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, 0x50, flags, 1, 1],
            length,
            version: 4,
            protocol: 6,
            kind: RefusalKind::Reset as u8,
            spare: 0,
        }
    }

    #[test]
    fn a_reset_has_the_numbers_that_the_client_will_believe() {
        // RFC 9293, 3.10.7.1: with ACK <SEQ=SEG.ACK>, without <SEQ=0><ACK=SEG.SEQ+SEG.LEN>.
        for (flags, length, sequence, acknowledgement, answer) in [
            (ACK, 20, 0x200u32, 0u32, RST),
            (ACK | FIN, 120, 0x200, 0, RST),
            (SYN | ACK, 20, 0x200, 0, RST),
            (0, 20, 0, 0x100, RST | ACK),
            (FIN, 20, 0, 0x101, RST | ACK),
            (0, 120, 0, 0x164, RST | ACK),
            (SYN | FIN, 21, 0, 0x103, RST | ACK),
        ] {
            let found = datagram(&refused(flags, length)).unwrap();
            let tcp = &found[20..];
            assert_eq!(found[12..20], [10, 96, 0, 1, 10, 244, 1, 9]);
            assert_eq!(tcp[..4], [0, 80, 0x9c, 0x40], "from the dialled port");
            let what = format!("flags {flags:#04x}, {length} bytes");
            assert_eq!(tcp[4..8], sequence.to_be_bytes(), "{what}");
            assert_eq!(tcp[8..12], acknowledgement.to_be_bytes(), "{what}");
            assert_eq!(tcp[13], answer, "{what}");
            // Summed with its own field, a segment has nothing but ones (RFC 1071).
            let pseudo = [10, 96, 0, 1, 10, 244, 1, 9, 0, 6, 0, 20];
            assert_eq!(checksum(pseudo.iter().chain(tcp)), [0, 0], "{what}");
        }
    }

    #[test]
    fn nobody_answers_a_reset_or_what_is_not_tcp() {
        assert_eq!(datagram(&refused(RST, 20)), None);
        assert_eq!(datagram(&refused(RST | ACK, 20)), None);
        let datagrams = Refusal {
            protocol: 17,
            ..refused(ACK, 20)
        };
        assert_eq!(datagram(&datagrams), None);
    }

    #[test]
    fn over_ipv6_the_header_says_how_long_the_segment_is() {
        let [source, destination] = [[0xfd; 16], [0xfc; 16]];
        let refusal = Refusal {
            source: Ipv6Address::from(source).0,
            destination: Ipv6Address::from(destination).0,
            version: 6,
            ..refused(ACK, 20)
        };
        let found = datagram(&refusal).unwrap();
        assert_eq!(found.len(), 60);
        assert_eq!(found[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        assert_eq!(found[8..24], destination);
        assert_eq!(found[24..40], source);
        let mut whole = destination.to_vec();
        whole.extend(source);
        whole.extend([0, 6, 0, 20]);
        assert_eq!(checksum(whole.iter().chain(&found[40..])), [0, 0]);
    }
}
