//! ICMP (RFC 792) and `ICMPv6` (RFC 4443, RFC 4861): what speaks of another packet.

/// What both begin with, up to where an error quotes a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IcmpHeader {
    /// What the message is.
    pub kind: u8,
    /// More of that.
    pub code: u8,
    /// The message's sum; for `ICMPv6` with a pseudo-header.
    pub checksum: [u8; 2],
    /// A pointer, an MTU, or nothing.
    pub rest: [u8; 4],
}

impl IcmpHeader {
    /// Where the checksum lies in the header.
    pub const CHECKSUM: usize = 2;
}

/// An option of neighbour discovery (RFC 4861, section 4.6).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NeighbourOption {
    /// What the option is.
    pub kind: u8,
    /// Its length in units of 8 bytes; zero is forbidden.
    pub length: u8,
}

impl NeighbourOption {
    /// The option of a redirect that holds the packet it is about, behind 8 bytes.
    pub const REDIRECTED: u8 = 4;
}

/// A checksum field, wherever it is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct ChecksumField(pub [u8; 2]);

/// Types of ICMP messages.
pub mod icmp_type {
    /// IPv4: destination unreachable, with "fragmentation needed" as one of its codes.
    pub const UNREACHABLE: u8 = 3;
    /// IPv4: a question whether somebody is there.
    pub const ECHO: u8 = 8;
    /// IPv4: another router is better.
    pub const REDIRECT: u8 = 5;
    /// IPv4: time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// IPv4: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// IPv6: the first error, destination unreachable; packet too big and time exceeded follow.
    pub const FIRST_V6: u8 = 1;
    /// IPv6: the last error that RFC 4443 defines, parameter problem.
    pub const LAST_V6: u8 = 4;
    /// IPv6: a question whether somebody is there.
    pub const ECHO_V6: u8 = 128;
    /// IPv6: another router is better, or the destination is on the link itself.
    pub const REDIRECT_V6: u8 = 137;
}
