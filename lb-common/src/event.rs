//! The record in EVENTS, the ring buffer that shows a sample of what happens.
use bytemuck::{Pod, Zeroable};

/// One sampled decision about a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// The packet's source before any rewrite: 16 bytes, IPv4 in the first four.
    pub source: [u8; 16],
    /// The packet's destination before any rewrite.
    pub destination: [u8; 16],
    /// Source port, network order.
    pub source_port: [u8; 2],
    /// Destination port, network order.
    pub destination_port: [u8; 2],
    /// 4 or 6.
    pub version: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub spare: [u8; 2],
    /// The [`crate::counter::Counter`] of what happened.
    pub counter: u32,
    /// The interface the packet was seen on.
    pub interface: u32,
}
const _: () = assert!(size_of::<Event>() == 48);
