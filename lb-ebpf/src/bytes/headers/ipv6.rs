//! IPv6 and its extension headers (RFC 8200, RFC 4302).

/// The fixed header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ipv6Header {
    /// Version, traffic class, flow label.
    pub version_class_flow: [u8; 4],
    /// Bytes after this header.
    pub payload_length: [u8; 2],
    /// Type of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Sender.
    pub source: [u8; 16],
    /// Receiver.
    pub destination: [u8; 16],
}

/// What all extension headers that are walked over begin with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExtensionHeader {
    /// Type of what follows.
    pub next_header: u8,
    /// Length, in a unit of the header's own.
    pub length: u8,
}

impl ExtensionHeader {
    /// Bytes of a header of type `kind`. The authentication header counts in words less two (RFC 4302, section 2.2),
    /// the others in 8 bytes less one, and the fragment header is 8 bytes (its length field is reserved).
    #[inline(always)]
    pub fn bytes(&self, kind: u8) -> usize {
        match kind {
            next_header::AUTHENTICATION => (usize::from(self.length) + 2) * 4,
            next_header::FRAGMENT => 8,
            _ => (usize::from(self.length) + 1) * 8,
        }
    }
}

/// The fragment header (RFC 8200, section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FragmentHeader {
    /// Type of what follows.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of 8 bytes in the high 13 bits, "more fragments" in the lowest.
    pub offset_more: [u8; 2],
    /// Identification of the datagram.
    pub identification: [u8; 4],
}

impl FragmentHeader {
    /// Whether the transport header is in an earlier fragment.
    #[inline(always)]
    pub fn is_later(&self) -> bool {
        u16::from_be_bytes(self.offset_more) & 0xfff8 != 0
    }
    /// Whether the datagram is whole: the "atomic fragment" of RFC 6946.
    #[inline(always)]
    pub fn is_atomic(&self) -> bool {
        u16::from_be_bytes(self.offset_more) & 0xfff9 == 0
    }
}

/// Next-header values of the extension headers that are walked over.
pub mod next_header {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Authentication.
    pub const AUTHENTICATION: u8 = 51;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
    /// Mobility.
    pub const MOBILITY: u8 = 135;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extension_header_counts_its_length_in_a_unit_of_its_own() {
        for (kind, length, bytes) in [
            (next_header::HOP_BY_HOP, 0, 8),
            (next_header::DESTINATION, 2, 24),
            (next_header::AUTHENTICATION, 4, 24),
            (next_header::FRAGMENT, 0, 8),
            // Of the fragment header the field is reserved: whatever it says is ignored (RFC 8200, section 4.5).
            (next_header::FRAGMENT, 7, 8),
        ] {
            let header = ExtensionHeader {
                next_header: 6,
                length,
            };
            assert_eq!(header.bytes(kind), bytes, "type {kind}, length {length}");
        }
    }
}
