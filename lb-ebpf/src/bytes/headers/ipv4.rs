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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_must_not_be_fragmented_is_no_fragment() {
        for (word, is_fragment, is_later) in [
            (0u16, false, false),
            (0x4000, false, false), // "Don't fragment", as nearly all TCP has it.
            (0x8000, false, false), // Reserved.
            (0x2000, true, false),  // More to come.
            (0x2001, true, true),
            (0x0001, true, true),
            (0x1000, true, true),
        ] {
            let header = Ipv4Header {
                version_length: 0x45,
                traffic_class: 0,
                total_length: [0, 40],
                identification: [0; 2],
                fragment: word.to_be_bytes(),
                ttl: 64,
                protocol: 6,
                checksum: [0; 2],
                source: [10, 0, 0, 1],
                destination: [10, 0, 0, 2],
            };
            let found = (header.is_fragment(), header.is_later_fragment());
            assert_eq!(found, (is_fragment, is_later), "{word:#06x}");
        }
    }
}
