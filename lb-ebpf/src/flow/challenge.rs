//! How a client proves that it received what the backend sent: by a number that nobody else can know.
//!
//! SCTP: the tag that the backend wants in each packet (RFC 9260, section 8.5), exactly that.
//!
//! TCP: an acknowledgement of what the backend has sent. It need not be that of the SYN alone: with TCP Fast Open (RFC
//! 7413), or where the first acknowledgement was lost, it is one of data as well. Before the backend has heard from the
//! client it can have sent no more than the window in the client's SYN, which is never scaled (RFC 7323, section 2.2):
//! 65,535 bytes. An acknowledgement within [`WINDOW`] of the backend's number is taken for a proof; who guesses blindly
//! meets it once in 65,536 tries, as he would meet the window of the kernel's own tracking of connections.
use crate::{
    bytes::{
        headers::{SctpCommonHeader, SctpInit, TcpFlags, TcpHeader, Wire},
        packet::Packet,
        parsed::Parsed,
    },
    context::environment::FlowHandle,
};
use lb_common::FlowFlags;

/// So many acknowledgement numbers are a proof, from the one that was asked for on.
pub const WINDOW: u32 = 1 << 16;

/// Notes in a request's entry what the backend's packet asks the client for.
///
/// A number that was noted stays, for the client may be about to give it, until the backend begins anew or has gone on so
/// far that the proof must have been missed. (The note may have been lost: see [`FlowHandle`].)
#[inline(always)]
pub fn ask<F: Wire, P: Packet, H: FlowHandle<F>>(packet: &P, parsed: &Parsed<F>, request: &H) {
    let is_first = parsed.tcp_flags.is_syn_ack();
    if parsed.is_sctp() {
        if is_first && let Some(init) = packet.header::<SctpInit>(parsed.l4_offset()) {
            request.challenge(u32::from_be_bytes(init.initiate_tag));
        }
        return;
    }
    if parsed.tcp_flags.has(TcpFlags::RST) {
        return;
    }
    let Some(tcp) = packet.header::<TcpHeader>(parsed.l4_offset()) else {
        return;
    };
    let number = u32::from_be_bytes(tcp.sequence).wrapping_add(u32::from(is_first));
    let entry = request.entry();
    if is_first
        || !entry.flags.has(FlowFlags::CHALLENGED)
        || number.wrapping_sub(entry.expected_ack) >= WINDOW
    {
        request.challenge(number);
    }
}

/// Whether a client's packet gives what was asked for.
#[inline(always)]
pub fn is_given<F: Wire, P: Packet>(packet: &P, parsed: &Parsed<F>, asked: u32) -> bool {
    if !parsed.tcp_flags.has(TcpFlags::ACK) {
        return false;
    }
    if parsed.is_sctp() {
        let sctp = packet.header::<SctpCommonHeader>(parsed.l4_offset());
        return sctp.is_some_and(|sctp| u32::from_be_bytes(sctp.verification_tag) == asked);
    }
    let tcp = packet.header::<TcpHeader>(parsed.l4_offset());
    tcp.is_some_and(|tcp| u32::from_be_bytes(tcp.acknowledgement).wrapping_sub(asked) < WINDOW)
}
