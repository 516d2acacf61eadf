//! What follows the IP header, as bytes.
use super::{PacketBuilder, length};
use crate::packets::dissect::{
    ICMP_V4, ICMP_V6, SCTP, TCP, UDP, crc32c, flag, internet_checksum, pseudo_header,
};

/// What follows the IP header.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    Tcp {
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        options: Vec<u8>,
    },
    Udp {
        has_checksum: bool,
    },
    /// What a TCP segment would say, said in SCTP.
    Sctp {
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    Other(u8),
}

impl PacketBuilder {
    pub(super) fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => TCP,
            Transport::Udp { .. } => UDP,
            Transport::Sctp { .. } => SCTP,
            Transport::Icmp { .. } if self.source.is_ipv4() => ICMP_V4,
            Transport::Icmp { .. } => ICMP_V6,
            Transport::Other(number) => number,
        }
    }

    pub(super) fn segment(&self) -> Vec<u8> {
        let (source_port, destination_port) = self.ports;
        let mut bytes = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
        let checksum_at = match &self.transport {
            Transport::Tcp {
                sequence,
                acknowledgement,
                flags,
                options,
            } => {
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                let words = u8::try_from(5 + options.len() / 4).expect("at most 40 bytes");
                bytes.extend([words << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(options);
                16
            }
            Transport::Udp { has_checksum } => {
                bytes.extend(length(8 + self.payload.len()));
                bytes.extend([0, 0]);
                if !has_checksum {
                    bytes.extend(&self.payload);
                    return bytes;
                }
                6
            }
            Transport::Sctp {
                sequence,
                acknowledgement,
                flags,
            } => {
                bytes.extend(acknowledgement.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend([chunk(*flags), 0]);
                bytes.extend(length(20 + self.payload.len()));
                bytes.extend(sequence.wrapping_add(1).to_be_bytes());
                bytes.extend([0; 12]);
                bytes.extend(&self.payload);
                let sum = crc32c(&bytes);
                bytes[8..12].copy_from_slice(&sum);
                return bytes;
            }
            Transport::Icmp { kind, code, rest } => {
                bytes = [&[*kind, *code, 0, 0][..], rest].concat();
                2
            }
            Transport::Other(_) => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        let protocol = self.protocol();
        let pseudo = match protocol {
            ICMP_V4 => Vec::new(),
            _ => pseudo_header(self.source, self.destination, protocol, bytes.len()),
        };
        let mut checksum = internet_checksum(&[&pseudo, &bytes]);
        if checksum == 0 && protocol == UDP {
            checksum = 0xffff;
        }
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

/// The chunk that says what TCP's control bits say.
fn chunk(flags: u8) -> u8 {
    use flag::{ACK, FIN, RST, SYN};
    match flags {
        _ if flags & RST != 0 => 6,
        _ if flags & FIN != 0 => 7,
        _ if flags & (SYN | ACK) == SYN | ACK => 2,
        _ if flags & SYN != 0 => 1,
        _ => 0,
    }
}
