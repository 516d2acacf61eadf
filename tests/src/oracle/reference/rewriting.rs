//! Changing a packet's bytes, with every checksum made from scratch.
use std::net::{IpAddr, SocketAddr};

use lb_common::Verdict;

use crate::packets::dissect::{
    Dissected, SCTP, UDP, crc32c, header_checksum_holds, internet_checksum, pseudo_header, segment,
    transport_checksum_holds,
};

/// Which end of a packet changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// Who receives: on ingress.
    Destination,
    /// Who sends: on egress.
    Source,
}

/// What changes.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Which end.
    pub end: End,
    /// What it becomes.
    pub to: SocketAddr,
    /// What the port of the other end becomes, if that changes as well.
    pub other_port: Option<u16>,
    /// The Ethernet destination, if that changes as well.
    pub ethernet: Option<[u8; 6]>,
}

/// What must have become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
}

impl Outcome {
    pub(super) fn untouched(verdict: Verdict, bytes: &[u8]) -> Self {
        Self {
            verdict,
            bytes: bytes.to_vec(),
        }
    }
}

/// The packet after a change. A checksum that was right is made from scratch. One that was wrong cannot be predicted by
/// a slow machine without becoming a fast one: it must only stay wrong, so it is taken from what was `observed`.
pub(super) fn rewritten(
    bytes: &[u8],
    packet: &Dissected,
    change: &Change,
    observed: &[u8],
) -> Vec<u8> {
    let mut new = bytes.to_vec();
    let mut changed = packet.clone();
    let other_end = match change.end {
        End::Destination => {
            changed.destination = change.to;
            &mut changed.source
        }
        End::Source => {
            changed.source = change.to;
            &mut changed.destination
        }
    };
    if let Some(port) = change.other_port {
        other_end.set_port(port);
    }
    if let Some(ethernet) = change.ethernet {
        put(&mut new, 0, &ethernet);
    }
    let addresses = if packet.source.is_ipv4() {
        packet.l3 + 12
    } else {
        packet.l3 + 8
    };
    let addresses_length = if packet.source.is_ipv4() { 4 } else { 16 };
    put(&mut new, addresses, &octets(changed.source.ip()));
    put(
        &mut new,
        addresses + addresses_length,
        &octets(changed.destination.ip()),
    );
    put(&mut new, packet.l4, &changed.source.port().to_be_bytes());
    put(
        &mut new,
        packet.l4 + 2,
        &changed.destination.port().to_be_bytes(),
    );
    if packet.source.is_ipv4() {
        set_header_checksum(&mut new, bytes, packet, observed);
    }
    set_transport_checksum(&mut new, bytes, packet, &changed, observed);
    new
}

fn set_header_checksum(new: &mut [u8], old: &[u8], packet: &Dissected, observed: &[u8]) {
    let field = packet.l3 + 10;
    if !header_checksum_holds(old, packet) {
        copy(new, observed, field);
        assert!(
            !header_checksum_holds(new, packet),
            "a wrong IP header checksum became right"
        );
        return;
    }
    put(new, field, &[0, 0]);
    let length = usize::from(new[packet.l3] & 15) * 4;
    let checksum = internet_checksum(&[&new[packet.l3..packet.l3 + length]]);
    put(new, field, &checksum.to_be_bytes());
}

fn set_transport_checksum(
    new: &mut [u8],
    old: &[u8],
    packet: &Dissected,
    changed: &Dissected,
    observed: &[u8],
) {
    let field = packet.checksum_at();
    if packet.protocol == SCTP {
        set_crc(new, old, changed, observed);
        return;
    }
    let has_none =
        packet.protocol == UDP && packet.source.is_ipv4() && old[field..field + 2] == [0, 0];
    if has_none {
        return;
    }
    if !transport_checksum_holds(old, packet) {
        copy(new, observed, field);
        assert!(
            !transport_checksum_holds(new, changed),
            "a wrong transport checksum became right"
        );
        return;
    }
    put(new, field, &[0, 0]);
    let segment = segment(new, changed).expect("its checksum was right, so it is whole");
    let pseudo = pseudo_header(
        changed.source.ip(),
        changed.destination.ip(),
        packet.protocol,
        segment.len(),
    );
    let mut checksum = internet_checksum(&[&pseudo, segment]);
    if checksum == 0 && packet.protocol == UDP {
        checksum = 0xffff;
    }
    put(new, field, &checksum.to_be_bytes());
}

/// SCTP's sum covers no addresses: while the ports stay, so does it, right or wrong.
fn set_crc(new: &mut [u8], old: &[u8], changed: &Dissected, observed: &[u8]) {
    let field = changed.checksum_at();
    let ports = changed.l4..changed.l4 + 4;
    if old[ports.clone()] == new[ports] || old[field..field + 4] == [0; 4] {
        return;
    }
    if transport_checksum_holds(old, changed) {
        let segment = segment(new, changed).expect("its checksum was right, so it is whole");
        let sum = crc32c(segment);
        put(new, field, &sum);
        return;
    }
    copy(new, observed, field);
    copy(new, observed, field + 2);
    let holds = transport_checksum_holds(new, changed);
    assert!(!holds, "a wrong transport checksum became right");
}

pub(super) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}
pub(super) fn copy(bytes: &mut [u8], from: &[u8], at: usize) {
    if let Some(pair) = from.get(at..at + 2) {
        put(bytes, at, pair);
    }
}
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
