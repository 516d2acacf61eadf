//! IPv4 (RFC 791).

/// The fixed part of the header; options follow where the length says so.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Header {
    /// Version in the high nibble, length in words in the low.
    pub version_length: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Length of the datagram in bytes.
    pub total_length: [u8; 2],
    /// Identification of a fragmented datagram.
    pub identification: [u8; 2],
    /// Three flags and the fragment offset in units of 8 bytes.
    pub fragment: [u8; 2],
    /// Time to live.
    pub ttl: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Sum of the header.
    pub checksum: [u8; 2],
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Length of the header in bytes, options included: 0 to 60, of which less than 20 is malformed.
    #[inline(always)]
    pub fn length(&self) -> usize {
        usize::from(self.version_length & 0x0f) * 4
    }
    /// Whether this is the first fragment or a later one: offset not zero, or more to come.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.fragment) & 0x3fff != 0
    }
    /// Whether the transport header is in an earlier fragment.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        u16::from_be_bytes(self.fragment) & 0x1fff != 0
    }
}
