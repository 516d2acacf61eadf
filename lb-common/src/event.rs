//! The record in EVENTS, the ring buffer that shows a sample of what happens.
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
