//! What becomes of packets without ports of their own.
use std::net::IpAddr;

use lb_common::{DropReason, PassReason, Translation, Verdict};
use lb_ebpf::bytes::parse::Link;

use super::{End, Half, Key, Observed, Outcome, Passing, World, rewriting};
use crate::packets::dissect::{
    SCTP, dissect, header_checksum_holds, internet_checksum, transport_checksum_holds,
    without_ports::{Complaint, Piece, complaint, icmp_checksum, piece, portless},
};

/// What the first piece of a datagram became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstPiece {
    end: End,
    to: IpAddr,
    noted: u32,
}

impl World {
    /// The others will follow the first piece.
    pub(super) fn note_piece(&mut self, passing: &Passing<'_>, outcome: &Outcome) {
        let Verdict::Translated(translation) = outcome.verdict else {
            return;
        };
        if !passing.packet.is_fragment {
            return;
        }
        let Some(piece) = piece(passing.bytes, passing.link) else {
            return;
        };
        let after = dissect(&outcome.bytes, passing.link).expect("it was translated");
        let end = end_of(translation);
        let to = match end {
            End::Destination => after.destination.ip(),
            End::Source => after.source.ip(),
        };
        let before = match end {
            End::Destination => passing.packet.destination.ip(),
            End::Source => passing.packet.source.ip(),
        };
        if to == before {
            return;
        }
        let noted = self.now;
        let first = FirstPiece { end, to, noted };
        self.pieces.insert((piece.datagram, end), first);
    }

    /// A packet that is not TCP or UDP, for a reason.
    pub(super) fn without_ports(
        &self,
        end: End,
        reason: PassReason,
        (bytes, link): (&[u8], Link),
        observed: &Observed,
    ) -> Outcome {
        if reason == PassReason::LaterFragment
            && let Some(piece) = piece(bytes, link)
            && let Some(first) = self.pieces.get(&(piece.datagram.clone(), end))
            && !self.passed(first.noted, 30)
        {
            return Outcome {
                verdict: Verdict::Translated(Translation::LaterFragment),
                bytes: readdressed(bytes, &piece, first, &observed.bytes),
            };
        }
        if reason == PassReason::LaterFragment
            && end == End::Destination
            && let Some(piece) = piece(bytes, link)
            && self.unserved(piece.datagram.destination, false)
                != Verdict::Pass(PassReason::NotOurs)
        {
            return Outcome::untouched(Verdict::Drop(DropReason::EarlyFragment), bytes);
        }
        if reason != PassReason::OtherProtocol {
            return Outcome::untouched(Verdict::Pass(reason), bytes);
        }
        if let Some(message) = complaint(bytes, link)
            && let Some(outcome) = self.complain(end, &message, bytes, observed)
        {
            return outcome;
        }
        if let Some((destination, is_ping)) = portless(bytes, link)
            && let refused @ Verdict::Drop(_) = self.unserved(destination, is_ping)
        {
            return Outcome::untouched(refused, bytes);
        }
        // Why it passes depends on how far one looks.
        let verdict = match observed.verdict {
            passed @ Verdict::Pass(_) => passed,
            Verdict::Translated(_) | Verdict::Drop(_) => Verdict::Pass(reason),
        };
        Outcome::untouched(verdict, bytes)
    }

    fn complain(
        &self,
        end: End,
        message: &Complaint,
        bytes: &[u8],
        observed: &Observed,
    ) -> Option<Outcome> {
        let quoted = Key {
            source: message.quoted.source,
            destination: message.quoted.destination,
            protocol: message.quoted.protocol,
            end,
        };
        let answer = quoted.reversed();
        if message.is_redirect {
            let mut either = [quoted, answer].into_iter();
            let is_translated = |key: &Key| {
                let half = self.halves.get(key);
                half.is_some_and(|half| !half.changes_nothing())
            };
            let is_ours = either.any(|it| is_translated(&it) || is_translated(&it.crossed()));
            let dropped = Verdict::Drop(DropReason::Redirect);
            return is_ours.then(|| Outcome::untouched(dropped, bytes));
        }
        let half = self.find(&answer, end)?;
        if half.changes_nothing() {
            return None;
        }
        if half.to.port() == 0 || message.destination != quoted.source.ip() {
            return None;
        }
        Some(Outcome {
            verdict: Verdict::Translated(Translation::IcmpError),
            bytes: translated(end, message, &half, bytes, &observed.bytes),
        })
    }
}

/// Which end a translation changes.
pub(super) fn end_of(translation: Translation) -> End {
    match translation {
        Translation::Request | Translation::MasqueradedReply => End::Destination,
        Translation::Reply | Translation::MasqueradedRequest => End::Source,
        Translation::IcmpError | Translation::LaterFragment => {
            unreachable!("of packets without ports")
        }
    }
}

/// Where a header's sender is; the receiver follows.
fn address_at(is_v6: bool, l3: usize, end: End) -> usize {
    match (is_v6, end) {
        (false, End::Source) => l3 + 12,
        (false, End::Destination) => l3 + 16,
        (true, End::Source) => l3 + 8,
        (true, End::Destination) => l3 + 24,
    }
}

fn put_address(bytes: &mut [u8], l3: usize, end: End, to: IpAddr) {
    let octets = match to {
        IpAddr::V4(to) => to.octets().to_vec(),
        IpAddr::V6(to) => to.octets().to_vec(),
    };
    rewriting::put(bytes, address_at(to.is_ipv6(), l3, end), &octets);
}

/// An IPv4 header's checksum after its header has changed: from scratch if it was right, otherwise as observed.
fn set_header_checksum(new: &mut [u8], old: &[u8], l3: usize, observed: &[u8]) {
    let length = usize::from(old[l3] & 15) * 4;
    let holds = |bytes: &[u8]| {
        let header = bytes.get(l3..l3 + length);
        header.is_some_and(|header| internet_checksum(&[header]) == 0)
    };
    if !holds(old) {
        rewriting::copy(new, observed, l3 + 10);
        return;
    }
    rewriting::put(new, l3 + 10, &[0, 0]);
    let checksum = internet_checksum(&[&new[l3..l3 + length]]);
    rewriting::put(new, l3 + 10, &checksum.to_be_bytes());
}

fn readdressed(bytes: &[u8], piece: &Piece, first: &FirstPiece, observed: &[u8]) -> Vec<u8> {
    let mut new = bytes.to_vec();
    put_address(&mut new, piece.l3, first.end, first.to);
    if first.to.is_ipv4() {
        set_header_checksum(&mut new, bytes, piece.l3, observed);
    }
    new
}

fn translated(end: End, message: &Complaint, half: &Half, old: &[u8], observed: &[u8]) -> Vec<u8> {
    let (mut new, to) = (old.to_vec(), half.to);
    let mut after = message.clone();
    let quoted = &mut after.quoted;
    let other_end = match end {
        // Who receives the message has sent the packet.
        End::Destination => {
            (quoted.source, after.destination) = (to, to.ip());
            quoted
                .destination
                .set_port(half.other_port.unwrap_or(quoted.destination.port()));
            End::Source
        }
        End::Source => {
            if message.source == quoted.destination.ip() {
                after.source = to.ip();
            }
            quoted.destination = to;
            quoted
                .source
                .set_port(half.other_port.unwrap_or(quoted.source.port()));
            End::Destination
        }
    };
    put_address(&mut new, message.l3, End::Source, after.source);
    put_address(&mut new, message.l3, End::Destination, after.destination);
    put_address(&mut new, message.quoted.l3, other_end, to.ip());
    let quoted = &after.quoted;
    for (at, port) in [
        (quoted.l4, quoted.source.port()),
        (quoted.l4 + 2, quoted.destination.port()),
    ] {
        rewriting::put(&mut new, at, &port.to_be_bytes());
    }
    if to.is_ipv4() {
        set_header_checksum(&mut new, old, message.l3, observed);
        set_header_checksum(&mut new, old, message.quoted.l3, observed);
    }
    set_quoted_checksum(&mut new, old, message, &after, observed);
    let field = message.icmp + 2;
    let was_right =
        icmp_checksum(old, message).is_some_and(|sum| old[field..field + 2] == sum.to_be_bytes());
    match icmp_checksum(&new, &after) {
        Some(sum) if was_right => rewriting::put(&mut new, field, &sum.to_be_bytes()),
        _ => rewriting::copy(&mut new, observed, field),
    }
    new
}

/// The quoted transport checksum: from scratch if all of the packet is quoted and it was right; unknown, and so as
/// observed, if a part is missing; untouched if it is not there.
fn set_quoted_checksum(
    new: &mut [u8],
    old: &[u8],
    message: &Complaint,
    after: &Complaint,
    observed: &[u8],
) {
    let field = message.quoted.checksum_at();
    let is_sctp = message.quoted.protocol == SCTP;
    let length = if is_sctp { 4 } else { 2 };
    if field + length > message.end || is_sctp && message.quoted.is_fragment {
        return;
    }
    for at in (field..field + length).step_by(2) {
        rewriting::copy(new, observed, at);
    }
    let is_whole = header_checksum_holds(old, &message.quoted)
        && transport_checksum_holds(old, &message.quoted);
    assert!(
        !is_whole || transport_checksum_holds(new, &after.quoted),
        "a right checksum of a quoted packet became wrong"
    );
}
