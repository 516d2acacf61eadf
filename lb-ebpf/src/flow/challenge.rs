//! How a client proves that it received what the backend sent: by a number that nobody else can know.
use crate::bytes::{
    headers::{SctpCommonHeader, SctpInit, TcpFlags, TcpHeader, Wire},
    packet::Packet,
    parsed::Parsed,
};

/// The number that the backend's answer to an opening packet asks for. TCP: the acknowledgement of its sequence number; SCTP:
/// the tag it wants in each packet (RFC 9260, section 8.5).
#[inline(always)]
pub fn asked<F: Wire, P: Packet + ?Sized>(packet: &P, parsed: &Parsed<F>) -> Option<u32> {
    if !parsed.tcp_flags.is_syn_ack() {
        return None;
    }
    if parsed.is_sctp() {
        let init = packet.header::<SctpInit>(parsed.l4_offset())?;
        return Some(u32::from_be_bytes(init.initiate_tag));
    }
    let tcp = packet.header::<TcpHeader>(parsed.l4_offset())?;
    Some(u32::from_be_bytes(tcp.sequence).wrapping_add(1))
}

/// The number that a client's packet gives.
#[inline(always)]
pub fn given<F: Wire, P: Packet + ?Sized>(packet: &P, parsed: &Parsed<F>) -> Option<u32> {
    if !parsed.tcp_flags.has(TcpFlags::ACK) {
        return None;
    }
    if parsed.is_sctp() {
        let sctp = packet.header::<SctpCommonHeader>(parsed.l4_offset())?;
        return Some(u32::from_be_bytes(sctp.verification_tag));
    }
    let tcp = packet.header::<TcpHeader>(parsed.l4_offset())?;
    Some(u32::from_be_bytes(tcp.acknowledgement))
}
