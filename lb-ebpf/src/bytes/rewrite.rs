//! Address translation: one side of the tuple, at need the other side's port, and every checksum that covers them.
use lb_common::{DropReason, FlowSide, IpFamily, Port};

use crate::bytes::{
    checksum::ChecksumDelta,
    headers::{IpHeader, Ports, SctpCommonHeader, Wire},
    packet::{L4Checksum, Packet},
    parsed::Parsed,
};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// Where the checksum lies in a transport header.
#[inline(always)]
pub const fn checksum_offset(is_udp: bool) -> usize {
    if is_udp { UDP_CHECKSUM } else { TCP_CHECKSUM }
}

/// Gives the packet another source or destination, and the other side another port unless that is [`Port::ZERO`].
///
/// The bounds of everything that is written were proven by the parse; the checksum helper comes first, because it ends
/// all views, and plain writes follow. An error means that bytes may have changed: the packet must not go on.
#[inline(always)]
pub fn rewrite<F: Wire, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    side: FlowSide,
    address: F::Address,
    port: Port,
    other_port: Port,
) -> Result<(), DropReason> {
    let tuple = &parsed.tuple;
    let (old_address, old_port, old_other_port) = match side {
        FlowSide::Destination => (tuple.destination, tuple.destination_port, tuple.source_port),
        FlowSide::Source => (tuple.source, tuple.source_port, tuple.destination_port),
    };
    let other_port = other_port.or(old_other_port);
    let addresses = ChecksumDelta::NONE.replace(old_address.as_ref(), address.as_ref());
    let ports = ChecksumDelta::NONE
        .replace_half(old_port.word(), port.word())
        .replace_half(old_other_port.word(), other_port.word());
    let (source, destination) = match side {
        FlowSide::Destination => (other_port, port),
        FlowSide::Source => (port, other_port),
    };
    let new_ports = Ports {
        source: source.to_wire(),
        destination: destination.to_wire(),
    };
    if parsed.is_sctp() {
        adjust_sctp(packet, parsed, new_ports).ok_or(DropReason::HalfRewritten)?;
    } else {
        let is_udp = parsed.is_udp();
        let checksum = L4Checksum {
            offset: parsed.l4_offset() + checksum_offset(is_udp),
            zero_is_none: is_udp,
            unbalanced: <F as IpFamily>::VERSION == 6,
        };
        packet
            .adjust_l4_checksum(checksum, addresses, ports)
            .ok_or(DropReason::HalfRewritten)?;
    }

    let ip = packet
        .header_mut::<F::IpHeader>(parsed.l3_offset())
        .ok_or(DropReason::HalfRewritten)?;
    match side {
        FlowSide::Destination => ip.set_destination(address),
        FlowSide::Source => ip.set_source(address),
    }
    ip.adjust_checksum(addresses);
    let header = packet
        .header_mut::<Ports>(parsed.l4_offset())
        .ok_or(DropReason::HalfRewritten)?;
    *header = new_ports;
    Ok(())
}

/// The sum of an SCTP packet as it is, and with these ports; `None`: it is out of reach.
///
/// It covers no pseudo-header, so that only other ports change it. Where it is zero it is yet to be computed: by a device
/// that this packet has not come to (a sum that happens to be zero is one in four thousand million).
#[inline(always)]
pub fn sctp_sums<F: Wire, P: Packet>(
    packet: &P,
    parsed: &Parsed<F>,
    new: Ports,
) -> Option<(u32, u32)> {
    let ip = packet.header::<F::IpHeader>(parsed.l3_offset())?;
    let length = (parsed.l3_offset() + ip.end()).wrapping_sub(parsed.l4_offset());
    let sctp = packet.header::<SctpCommonHeader>(parsed.l4_offset())?;
    let sum = u32::from_le_bytes(sctp.checksum);
    let difference = sctp.ports.word() ^ new.word();
    if difference == 0 || sum == 0 {
        return Some((sum, sum));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a datagram has 65,535 bytes at most"
    )]
    let change = packet.advance_crc32c(difference, length as u32 & 0xffff);
    Some((sum, sum ^ change))
}

#[inline(always)]
fn adjust_sctp<F: Wire, P: Packet>(packet: &mut P, parsed: &Parsed<F>, new: Ports) -> Option<()> {
    let (_, sum) = sctp_sums(packet, parsed, new)?;
    let sctp = packet.header_mut::<SctpCommonHeader>(parsed.l4_offset())?;
    sctp.checksum = sum.to_le_bytes();
    Some(())
}
