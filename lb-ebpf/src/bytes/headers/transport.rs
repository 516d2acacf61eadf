//! TCP (RFC 9293), UDP (RFC 768) and SCTP (RFC 9260).

/// The ports, at the start of TCP, UDP and SCTP alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The sender's.
    pub source: [u8; 2],
    /// The receiver's.
    pub destination: [u8; 2],
}

impl Ports {
    /// Both, the first byte lowest.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        u32::from_le_bytes([
            self.source[0],
            self.source[1],
            self.destination[0],
            self.destination[1],
        ])
    }
}

/// The fixed part of the TCP header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TcpHeader {
    /// Ports.
    pub ports: Ports,
    /// Sequence number.
    pub sequence: [u8; 4],
    /// Acknowledgement number.
    pub acknowledgement: [u8; 4],
    /// Header length in words, in the high nibble.
    pub data_offset: u8,
    /// Flags.
    pub flags: TcpFlags,
    /// Window.
    pub window: [u8; 2],
    /// Checksum.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: [u8; 2],
}

/// The UDP header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UdpHeader {
    /// Ports.
    pub ports: Ports,
    /// Header and data in bytes.
    pub length: [u8; 2],
    /// Checksum; zero over IPv4: none.
    pub checksum: [u8; 2],
}

/// The common header of SCTP, which is all of it that an error must quote.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SctpCommonHeader {
    /// Ports.
    pub ports: Ports,
    /// The receiver's tag; zero in an INIT.
    pub verification_tag: [u8; 4],
    /// `CRC32c` of the packet, the lowest byte first. Zero where the device is yet to compute it.
    pub checksum: [u8; 4],
}

/// The common header, and what each chunk begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SctpHeader {
    /// What all packets begin with.
    pub common: SctpCommonHeader,
    /// Type of the first chunk.
    pub chunk: u8,
    /// Its flags.
    pub chunk_flags: u8,
    /// Its length.
    pub chunk_length: [u8; 2],
}

/// A packet with INIT or INIT ACK.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SctpInit {
    /// What all packets begin with.
    pub header: SctpHeader,
    /// The sender's tag.
    pub initiate_tag: [u8; 4],
}

/// TCP's control bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(1);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(1 << 1);
    /// Reset.
    pub const RST: Self = Self(1 << 2);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(1 << 4);

    /// What a TCP segment would say in place of an SCTP packet with this first chunk: INIT opens, INIT ACK answers, ABORT
    /// resets, SHUTDOWN and SHUTDOWN ACK close, each from its side.
    #[inline(always)]
    pub const fn of_chunk(chunk: u8) -> Self {
        match chunk {
            1 => Self::SYN,
            2 => Self(Self::SYN.0 | Self::ACK.0),
            6 => Self(Self::RST.0 | Self::ACK.0),
            7 | 8 => Self(Self::FIN.0 | Self::ACK.0),
            _ => Self::ACK,
        }
    }
    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Opens a connection: SYN, and neither ACK, RST nor FIN.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::RST.0 | Self::FIN.0) == Self::SYN.0
    }
    /// The backend's answer to an opening segment.
    #[inline(always)]
    pub const fn is_syn_ack(self) -> bool {
        self.has(Self(Self::SYN.0 | Self::ACK.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_chunk_of_a_packet_says_what_control_bits_would() {
        let (fin, syn, rst, ack) = (TcpFlags::FIN, TcpFlags::SYN, TcpFlags::RST, TcpFlags::ACK);
        // RFC 9260, section 3.2.
        for (name, chunk, expected) in [
            ("DATA", 0, &[ack][..]),
            ("INIT", 1, &[syn]),
            ("INIT ACK", 2, &[syn, ack]),
            ("SACK", 3, &[ack]),
            ("HEARTBEAT", 4, &[ack]),
            ("ABORT", 6, &[rst, ack]),
            ("SHUTDOWN", 7, &[fin, ack]),
            ("SHUTDOWN ACK", 8, &[fin, ack]),
            ("COOKIE ECHO", 10, &[ack]),
            ("SHUTDOWN COMPLETE", 14, &[ack]),
        ] {
            let bits = expected.iter().fold(0, |bits, flag| bits | flag.0);
            assert_eq!(TcpFlags::of_chunk(chunk), TcpFlags(bits), "{name}");
        }
    }
}
