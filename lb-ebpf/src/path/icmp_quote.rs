//! Where an ICMP message quotes the packet that it is about.
use lb_common::{V4, V6};

use crate::{
    bytes::{
        headers::{IcmpHeader, NeighbourOption, icmp_type},
        packet::Packet,
        parse::Parse,
    },
    service::masquerade::MasqueradeAddress,
};

/// How many options of a redirect are looked at for the packet it is about; Linux sends at most one before it.
const REDIRECT_OPTIONS: usize = 3;

/// Bytes of an ICMP redirect of IPv6 before its options: header, target, destination.
const REDIRECT_V6: usize = 40;

/// Where a message quotes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quote {
    /// Nowhere: it speaks of no packet.
    None,
    /// An error, with the packet at this offset.
    OfError(usize),
    /// A redirect, with the packet at this offset.
    OfRedirect(usize),
}

/// What differs between the families' ICMP.
pub trait Icmp: MasqueradeAddress + Parse {
    /// The type of the question whether somebody is there.
    const ECHO: u8;

    /// Where the message of type `kind`, whose header is at `offset`, quotes a packet.
    fn quote<P: Packet>(packet: &P, kind: u8, offset: usize) -> Quote;
}

impl Icmp for V4 {
    const ECHO: u8 = icmp_type::ECHO;

    #[inline(always)]
    fn quote<P: Packet>(_packet: &P, kind: u8, offset: usize) -> Quote {
        let quoted = offset + size_of::<IcmpHeader>();
        match kind {
            icmp_type::UNREACHABLE | icmp_type::TIME_EXCEEDED | icmp_type::PARAMETER_PROBLEM => {
                Quote::OfError(quoted)
            }
            icmp_type::REDIRECT => Quote::OfRedirect(quoted),
            _ => Quote::None,
        }
    }
}

impl Icmp for V6 {
    const ECHO: u8 = icmp_type::ECHO_V6;

    #[inline(always)]
    fn quote<P: Packet>(packet: &P, kind: u8, offset: usize) -> Quote {
        match kind {
            icmp_type::FIRST_V6..=icmp_type::LAST_V6 => {
                Quote::OfError(offset + size_of::<IcmpHeader>())
            }
            icmp_type::REDIRECT_V6 => redirected(packet, offset + REDIRECT_V6),
            _ => Quote::None,
        }
    }
}

/// Finds the option that holds the redirected packet; options begin at `offset`.
#[inline(always)]
fn redirected<P: Packet>(packet: &P, offset: usize) -> Quote {
    let mut at = offset;
    for _ in 0..REDIRECT_OPTIONS {
        let Some(option) = packet.header::<NeighbourOption>(at) else {
            return Quote::None;
        };
        if option.kind == NeighbourOption::REDIRECTED {
            return Quote::OfRedirect(at + 8);
        }
        if option.length == 0 {
            return Quote::None;
        }
        at += usize::from(option.length) * 8;
    }
    Quote::None
}
