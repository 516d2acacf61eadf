//! The records of ring buffers: EVENTS shows a sample of what happens, REFUSALS asks the agent to tell senders.
use bytemuck::{Pod, Zeroable};

use crate::port::Port;

/// One sampled decision about a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// The packet's source as it came: words in network order, IPv4 in the first.
    pub source: [u32; 4],
    /// The packet's destination as it came.
    pub destination: [u32; 4],
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// 4 or 6.
    pub version: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub spare: u16,
    /// The [`crate::counter::Counter`] of what happened.
    pub counter: u32,
    /// The interface the packet was seen on.
    pub interface: u32,
}
const _: () = assert!(size_of::<Event>() == 48);

/// How the sender of a packet that nobody will answer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RefusalKind {
    /// ICMP port unreachable (RFC 792 and RFC 4443 section 3.1).
    #[default]
    Unreachable = 0,
    /// A TCP segment that resets the connection (RFC 9293, section 3.5.2).
    Reset = 1,
}

/// A packet that nobody will answer: its sender is to be told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Refusal {
    /// The packet's source: words in network order, IPv4 in the first.
    pub source: [u32; 4],
    /// The packet's destination.
    pub destination: [u32; 4],
    /// The first bytes of its transport header: of TCP as far as the control bits, of others the first eight, by which
    /// the sender finds its socket.
    pub transport: [u8; 16],
    /// Bytes of transport header and data, as the IP header says.
    pub length: u32,
    /// 4 or 6.
    pub version: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// A [`RefusalKind`] as a byte.
    pub kind: u8,
    /// Zero.
    pub spare: u8,
}
const _: () = assert!(size_of::<Refusal>() == 56);
