//! An ICMP error is translated like an answer, and what it quotes like the packet that was sent: who hears of it must
//! recognise what he sent.
//!
//! | hook    | what is rewritten                                                                     |
//! |---------|---------------------------------------------------------------------------------------|
//! | ingress | the receiver, and the source of the quoted packet: from the frontend to the backend, or from the masquerade to the client |
//! | egress  | the destination of the quoted packet: from the backend to the frontend, or from the client to the masquerade; and the sender, if it is the same one. A router's error keeps its sender |
//!
//! Every checksum is changed by what its bytes change by. In the message's own sum the quoted IPv4 header counts for nothing,
//! because its own checksum makes good for its addresses. The quoted transport checksum may lie behind the end of what
//! is quoted: then the ports' change stands alone. Of a part of an SCTP packet the sum is left as it is: what other ports
//! change in it depends on the length of the whole.
use lb_common::{DropReason, FlowFlags, FlowSide, Port, Translation, Verdict};

use crate::{
    bytes::{
        checksum::{ChecksumDelta, adjust_in_place},
        headers::{ChecksumField, IcmpHeader, IpHeader as _, Ports, SctpCommonHeader},
        packet::{Forwarding, L4Checksum, Packet},
        rewrite::{checksum_offset, sctp_sums},
    },
    context::{Hook, environment::Environment, scratch::FamilyScratch},
    path::{icmp_quote::Icmp, origin::lead},
};

/// What of the message changes besides addresses and ports.
struct Sums {
    /// The change of the address.
    addresses: ChecksumDelta,
    /// The change of the message, but for its own sum.
    message: ChecksumDelta,
    /// The quoted transport checksum as it will be.
    quoted: QuotedSum,
}

/// The checksum in the transport header of a quoted packet.
#[derive(Clone, Copy)]
enum QuotedSum {
    /// It is not quoted, or stays.
    None,
    /// TCP's or UDP's.
    Internet(ChecksumField),
    /// SCTP's.
    Crc32c(u32),
}

/// Translates the error `scratch.message` about the packet `scratch.parsed` by the entry `scratch.entries.own`, which is of
/// this hook's side.
#[inline(always)]
pub fn translate<F, P, E>(
    packet: &mut P,
    hook: Hook,
    scratch: &mut FamilyScratch<F>,
    env: &E,
) -> Verdict
where
    F: Icmp,
    P: Packet + Forwarding<F>,
    E: Environment<F>,
{
    if let Err(reason) = rewrite(packet, hook.side, scratch) {
        return Verdict::Drop(reason);
    }
    let own = &scratch.entries.own;
    if hook.side == FlowSide::Destination
        && own.flags.has(FlowFlags::BRIDGED)
        && let Err(reason) = lead(
            packet,
            hook.link,
            env,
            own.flags,
            scratch.message.source,
            own.address,
        )
    {
        return Verdict::Drop(reason);
    }
    Verdict::Translated(Translation::IcmpError)
}

/// The change of all sums; nothing is written yet.
#[inline(always)]
fn sums<F, P>(packet: &P, side: FlowSide, scratch: &FamilyScratch<F>) -> Result<Sums, DropReason>
where
    F: Icmp,
    P: Packet,
{
    let (parsed, own) = (&scratch.parsed, &scratch.entries.own);
    let tuple = &parsed.tuple;
    let (old_address, old_port, old_other_port) = match side {
        FlowSide::Destination => (tuple.source, tuple.source_port, tuple.destination_port),
        FlowSide::Source => (tuple.destination, tuple.destination_port, tuple.source_port),
    };
    let other_port = own.other_port.or(old_other_port);
    let addresses = ChecksumDelta::NONE.replace(old_address.as_ref(), own.address.as_ref());
    let ports = ChecksumDelta::NONE
        .replace_half(old_port.word(), own.port.word())
        .replace_half(old_other_port.word(), other_port.word());
    let mut message = ports;
    if F::VERSION == 6 {
        message = message.plus(addresses);
    }
    let (message, quoted) = if parsed.is_sctp() {
        let new = match side {
            FlowSide::Destination => (own.port, other_port),
            FlowSide::Source => (other_port, own.port),
        };
        quoted_sctp(packet, scratch, new, message)?
    } else {
        quoted_internet(packet, scratch, addresses.plus(ports), message)?
    };
    Ok(Sums {
        addresses,
        message,
        quoted,
    })
}

/// The change of the message with that of the sum of the TCP or UDP packet it quotes, which changes by `change`.
#[inline(always)]
fn quoted_internet<F, P>(
    packet: &P,
    scratch: &FamilyScratch<F>,
    change: ChecksumDelta,
    message: ChecksumDelta,
) -> Result<(ChecksumDelta, QuotedSum), DropReason>
where
    F: Icmp,
    P: Packet,
{
    let is_udp = scratch.parsed.is_udp();
    let field = scratch.parsed.l4_offset() + checksum_offset(is_udp);
    if field + size_of::<ChecksumField>() > scratch.message.end() {
        return Ok((message, QuotedSum::None));
    }
    let old = packet
        .header::<ChecksumField>(field)
        .ok_or(DropReason::QuoteOutOfReach)?
        .0;
    let mut new = old;
    adjust_in_place(&mut new, is_udp, change);
    let message = message.replace_half(u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    Ok((message, QuotedSum::Internet(ChecksumField(new))))
}

/// The same of an SCTP packet, which gets these ports.
#[inline(always)]
fn quoted_sctp<F, P>(
    packet: &P,
    scratch: &FamilyScratch<F>,
    (source, destination): (Port, Port),
    message: ChecksumDelta,
) -> Result<(ChecksumDelta, QuotedSum), DropReason>
where
    F: Icmp,
    P: Packet,
{
    let parsed = &scratch.parsed;
    let end = parsed.l4_offset() + size_of::<SctpCommonHeader>();
    if parsed.is_fragment() || end > scratch.message.end() {
        return Ok((message, QuotedSum::None));
    }
    let ports = Ports {
        source: source.to_wire(),
        destination: destination.to_wire(),
    };
    let (old, new) = sctp_sums(packet, parsed, ports).ok_or(DropReason::QuoteOutOfReach)?;
    let word = |sum: u32| u32::from_ne_bytes(sum.to_le_bytes());
    let message = message.replace(&[word(old)], &[word(new)]);
    Ok((message, QuotedSum::Crc32c(new)))
}

#[inline(always)]
fn rewrite<F, P>(
    packet: &mut P,
    side: FlowSide,
    scratch: &FamilyScratch<F>,
) -> Result<(), DropReason>
where
    F: Icmp,
    P: Packet,
{
    let (parsed, message, own) = (&scratch.parsed, &scratch.message, &scratch.entries.own);
    let sums = sums(packet, side, scratch)?;
    // On ingress the receiver is the quoted packet's source, or the message would not be here.
    let is_readdressed =
        side == FlowSide::Destination || message.source == parsed.tuple.destination;
    let outer = if is_readdressed {
        sums.addresses
    } else {
        ChecksumDelta::NONE
    };
    let checksum = L4Checksum {
        offset: message.offset() + IcmpHeader::CHECKSUM,
        zero_is_none: false,
        unbalanced: F::VERSION == 6,
    };
    let pseudo = if F::VERSION == 6 {
        outer
    } else {
        ChecksumDelta::NONE
    };
    packet
        .adjust_l4_checksum(checksum, pseudo, sums.message)
        .ok_or(DropReason::HalfRewritten)?;
    if is_readdressed {
        let ip = packet
            .header_mut::<F::IpHeader>(message.l3_offset())
            .ok_or(DropReason::HalfRewritten)?;
        match side {
            FlowSide::Destination => ip.set_destination(own.address),
            FlowSide::Source => ip.set_source(own.address),
        }
        ip.adjust_checksum(outer);
    }
    let quoted = packet
        .header_mut::<F::IpHeader>(parsed.l3_offset())
        .ok_or(DropReason::HalfRewritten)?;
    match side {
        FlowSide::Destination => quoted.set_source(own.address),
        FlowSide::Source => quoted.set_destination(own.address),
    }
    quoted.adjust_checksum(sums.addresses);
    let ports = packet
        .header_mut::<Ports>(parsed.l4_offset())
        .ok_or(DropReason::HalfRewritten)?;
    let (port, other_port) = (own.port.to_wire(), own.other_port);
    let (quoted, other) = match side {
        FlowSide::Destination => (&mut ports.source, &mut ports.destination),
        FlowSide::Source => (&mut ports.destination, &mut ports.source),
    };
    *quoted = port;
    if other_port != Port::ZERO {
        *other = other_port.to_wire();
    }
    match sums.quoted {
        QuotedSum::None => {}
        QuotedSum::Internet(new) => {
            let field = parsed.l4_offset() + checksum_offset(parsed.is_udp());
            *packet
                .header_mut::<ChecksumField>(field)
                .ok_or(DropReason::HalfRewritten)? = new;
        }
        QuotedSum::Crc32c(new) => {
            packet
                .header_mut::<SctpCommonHeader>(parsed.l4_offset())
                .ok_or(DropReason::HalfRewritten)?
                .checksum = new.to_le_bytes();
        }
    }
    Ok(())
}
