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

/// A packet that nobody will answer: its sender is to be told (ICMP port unreachable, RFC 792 and RFC 4443 section 3.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Refusal {
    /// The packet's source: words in network order, IPv4 in the first.
    pub source: [u32; 4],
    /// The packet's destination.
    pub destination: [u32; 4],
    /// The first bytes of its transport header, by which the sender finds its socket: ports, and TCP's sequence number.
    pub transport: [u8; 8],
    /// 4 or 6.
    pub version: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub spare: [u8; 6],
}
const _: () = assert!(size_of::<Refusal>() == 48);
