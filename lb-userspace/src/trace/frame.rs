//! The packet of a question: the first one of its conversation, from the IP header on.
//!
//! Checksums stay zero. The datapath changes them by what it changes in the packet and never looks whether they are
//! right: that is the receiver's affair, and here is none.
use std::net::{IpAddr, SocketAddr};

use lb_common::Protocol;
use lb_ebpf::bytes::headers::TcpFlags;

const HOPS: u8 = 64;

/// A TCP segment with SYN, a UDP datagram without data, an SCTP packet with INIT. Both addresses are of one family;
/// where they are not, the packet is none that anybody could send, and nobody parses it.
pub(super) fn opening(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let segment = segment(protocol, source.port(), destination.port());
    let length = |header: usize| {
        let bytes = u16::try_from(header + segment.len()).unwrap_or_default();
        bytes.to_be_bytes()
    };
    let mut bytes = Vec::new();
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x45, 0]);
            bytes.extend(length(20));
            // No identification; not to be fragmented.
            bytes.extend([0, 0, 0x40, 0, HOPS, protocol.number(), 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(length(0));
            bytes.extend([protocol.number(), HOPS]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => {}
    }
    bytes.extend(segment);
    bytes
}

fn segment(protocol: Protocol, source: u16, destination: u16) -> Vec<u8> {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let rest: &[u8] = match protocol {
        // Sequence and acknowledgement number, 5 words, flags, window, checksum, urgent pointer.
        Protocol::Tcp => &[
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0x50,
            TcpFlags::SYN.0,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ],
        // Length, checksum.
        Protocol::Udp => &[0, 8, 0, 0],
        // No verification tag, checksum; INIT of 20 bytes: tag, window, streams out and in, first number.
        Protocol::Sctp => &[
            0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0,
            0, 1,
        ],
    };
    [&ports, rest].concat()
}
