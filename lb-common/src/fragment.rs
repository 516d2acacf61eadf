//! What the first fragment of a datagram leaves for the others, which carry no ports.
use crate::{family::IpFamily, flow::FlowFlags};

/// Key of FRAGMENTS: what all fragments of a datagram have in common at one place (RFC 791, RFC 8200 section 4.5).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey<F: IpFamily> {
    /// Who sends.
    pub source: F::Address,
    /// Who receives.
    pub destination: F::Address,
    /// The datagram's identification, as it lies in the packet.
    pub identification: u32,
    /// IANA protocol number over IPv4. IPv6 identifies a datagram without it: there it is the fragment header's own. And
    /// [`Tuple::LEAVES`](crate::Tuple::LEAVES) at an egress hook: a datagram may pass the one and the other kind of hook with
    /// the same addresses.
    pub protocol: u32,
}

/// Value of FRAGMENTS: what became of the first fragment.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentEntry<F: IpFamily> {
    /// What the rewritten side became.
    pub address: F::Address,
    /// When (low 32 bits of jiffies).
    pub noted: u32,
    /// Zero.
    pub spare_half: u16,
    /// Zero.
    pub spare: u8,
    /// The flow's flags. Behind what is zero: the compiler writes that at once, and the verifier wants such stores aligned.
    pub flags: FlowFlags,
    /// Zero.
    pub spare_word: u32,
    /// Zero.
    pub padding: F::Padding,
}

impl<F: IpFamily> FragmentEntry<F> {
    /// After so many seconds the identification may be another datagram's. A receiver waits as long for an IPv4 datagram, on
    /// Linux, and twice as long for one of IPv6.
    pub const SECONDS: u32 = 30;

    /// A first fragment that was given another address.
    #[inline(always)]
    pub fn new(address: F::Address, flags: FlowFlags, noted: u32) -> Self {
        Self {
            address,
            noted,
            spare_half: 0,
            spare: 0,
            flags,
            spare_word: 0,
            padding: F::Padding::default(),
        }
    }
}
