//! Packets as a test writes them down: `eth().ipv4(client, frontend).tcp(40_000, 80).syn().build()`.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what cannot happen here is a mistake in the test, and fails it"
)]
mod transport;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use self::transport::Transport;
use crate::packets::dissect::{SCTP, TCP, UDP, flag, internet_checksum};

/// A packet being built. Lengths and checksums come out right unless something is asked to be wrong.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    ethernet: Option<([u8; 6], [u8; 6])>,
    vlans: Vec<(u16, u16)>,
    source: IpAddr,
    destination: IpAddr,
    options: Vec<u8>,
    fragment: (u16, bool),
    identification: u16,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    ports: (u16, u16),
    payload: Vec<u8>,
    padding: usize,
}

/// An Ethernet frame.
pub fn eth() -> PacketBuilder {
    PacketBuilder {
        ethernet: Some(([0; 6], [2, 0, 0, 0, 0, 2])),
        ..ip()
    }
}

/// A packet that starts at the IP header.
pub fn ip() -> PacketBuilder {
    PacketBuilder {
        ethernet: None,
        vlans: Vec::new(),
        source: Ipv4Addr::UNSPECIFIED.into(),
        destination: Ipv4Addr::UNSPECIFIED.into(),
        options: Vec::new(),
        fragment: (0, false),
        identification: 0x1234,
        extensions: Vec::new(),
        transport: Transport::Other(59),
        ports: (0, 0),
        payload: Vec::new(),
        padding: 0,
    }
}

impl PacketBuilder {
    /// An 802.1Q tag in the frame; a second call adds an inner one.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlans.push((0x8100, id));
        self
    }
    /// An 802.1ad tag in the frame.
    #[must_use]
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.vlans.push((0x88a8, id));
        self
    }
    /// IPv4 from one address to another.
    #[must_use]
    pub fn ipv4(self, source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        self.addresses(source.into().into(), destination.into().into())
    }
    /// IPv6 from one address to another.
    #[must_use]
    pub fn ipv6(self, source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Self {
        self.addresses(source.into().into(), destination.into().into())
    }
    fn addresses(mut self, source: IpAddr, destination: IpAddr) -> Self {
        (self.source, self.destination) = (source, destination);
        self
    }
    /// Addresses, ports and protocol at once; the family is that of the addresses.
    #[must_use]
    pub fn between(self, protocol: u8, source: SocketAddr, destination: SocketAddr) -> Self {
        let addressed = self.addresses(source.ip(), destination.ip());
        match protocol {
            TCP => addressed.tcp(source.port(), destination.port()),
            UDP => addressed.udp(source.port(), destination.port()),
            SCTP => addressed.sctp(source.port(), destination.port()),
            other => addressed.other(other),
        }
    }
    /// The same packet from and to somebody else.
    #[must_use]
    pub fn readdressed(mut self, source: SocketAddr, destination: SocketAddr) -> Self {
        self.ports = (source.port(), destination.port());
        self.addresses(source.ip(), destination.ip())
    }
    /// IPv4 options, filled up to whole words with "no operation".
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 1);
        self
    }
    /// IPv4: the fragment at this offset (in units of 8 bytes). IPv6: use [`PacketBuilder::fragment_extension`].
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = (offset, more);
        self
    }
    /// An IPv6 extension header of this type, padded to at least so many bytes (to what its unit allows).
    #[must_use]
    pub fn extension(mut self, kind: u8, bytes: usize) -> Self {
        let content = if kind == 51 {
            // Words less two; the whole is a multiple of 8 bytes in IPv6 (RFC 4302 section 2.2).
            let bytes = bytes.max(16).next_multiple_of(8);
            let mut content = vec![0; bytes];
            content[1] = u8::try_from(bytes / 4 - 2).expect("at most 1028 bytes");
            content
        } else {
            let bytes = bytes.max(8).next_multiple_of(8);
            let mut content = vec![0; bytes];
            content[1] = u8::try_from(bytes / 8 - 1).expect("at most 2048 bytes");
            content
        };
        self.extensions.push((kind, content));
        self
    }
    /// The IPv6 fragment header; offset in units of 8 bytes. (0, false) is an atomic fragment.
    #[must_use]
    pub fn fragment_extension(mut self, offset: u16, more: bool) -> Self {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        self.extensions.push((44, vec![0, 0, high, low, 0, 0]));
        self
    }
    /// The datagram's identification.
    #[must_use]
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }
    /// A TCP segment, with ACK set.
    #[must_use]
    pub fn tcp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.ports = (source_port, destination_port);
        self.transport = Transport::Tcp {
            sequence: 1000,
            acknowledgement: 2000,
            flags: flag::ACK,
            options: Vec::new(),
        };
        self
    }
    /// A UDP datagram.
    #[must_use]
    pub fn udp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.ports = (source_port, destination_port);
        self.transport = Transport::Udp { has_checksum: true };
        self
    }
    /// An SCTP packet with one chunk, which says what TCP's control bits would: without any, DATA.
    #[must_use]
    pub fn sctp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.ports = (source_port, destination_port);
        self.transport = Transport::Sctp {
            sequence: 1000,
            acknowledgement: 2000,
            flags: flag::ACK,
        };
        self
    }
    /// An ICMP message of the family, with the payload behind its 8 bytes of header.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport = Transport::Icmp { kind, code, rest };
        self
    }
    /// Another protocol: nothing but the payload follows.
    #[must_use]
    pub fn other(mut self, protocol: u8) -> Self {
        self.transport = Transport::Other(protocol);
        self
    }
    /// TCP's control bits instead of ACK.
    #[must_use]
    pub fn flags(mut self, new: u8) -> Self {
        if let Transport::Tcp { flags, .. } | Transport::Sctp { flags, .. } = &mut self.transport {
            *flags = new;
        }
        self
    }
    /// An opening segment.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(flag::SYN)
    }
    /// The answer to an opening segment.
    #[must_use]
    pub fn syn_ack(self) -> Self {
        self.flags(flag::SYN | flag::ACK)
    }
    /// TCP's sequence number.
    #[must_use]
    pub fn sequence(mut self, number: u32) -> Self {
        if let Transport::Tcp { sequence, .. } | Transport::Sctp { sequence, .. } =
            &mut self.transport
        {
            *sequence = number;
        }
        self
    }
    /// TCP's acknowledgement number.
    #[must_use]
    pub fn acknowledge(mut self, number: u32) -> Self {
        if let Transport::Tcp {
            acknowledgement, ..
        }
        | Transport::Sctp {
            acknowledgement, ..
        } = &mut self.transport
        {
            *acknowledgement = number;
        }
        self
    }
    /// TCP options, filled up to whole words with "no operation".
    #[must_use]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = bytes.to_vec();
            options.resize(bytes.len().next_multiple_of(4), 1);
        }
        self
    }
    /// UDP's "no checksum".
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        if let Transport::Udp { has_checksum } = &mut self.transport {
            *has_checksum = false;
        }
        self
    }
    /// The data.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }
    /// Bytes behind the datagram, as Ethernet pads short frames.
    #[must_use]
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let segment = self.segment();
        let datagram = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.datagram_v4(source, destination, &segment)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.datagram_v6(source, destination, &segment)
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        };
        let mut bytes = Vec::new();
        if let Some((destination, source)) = self.ethernet {
            bytes.extend(destination);
            bytes.extend(source);
            for (kind, id) in &self.vlans {
                bytes.extend(kind.to_be_bytes());
                bytes.extend(id.to_be_bytes());
            }
            let ether_type = if self.source.is_ipv4() {
                0x0800u16
            } else {
                0x86dd
            };
            bytes.extend(ether_type.to_be_bytes());
        }
        bytes.extend(datagram);
        bytes.resize(bytes.len() + self.padding, 0xee);
        bytes
    }

    fn datagram_v4(&self, source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let words = u8::try_from(header / 4).expect("at most 60 bytes");
        let mut bytes = vec![0x40 | words, 0];
        bytes.extend(length(header + segment.len()));
        let (offset, more) = self.fragment;
        bytes.extend(self.identification.to_be_bytes());
        bytes.extend((offset | u16::from(more) << 13).to_be_bytes());
        bytes.extend([64, self.protocol(), 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(&self.options);
        let checksum = internet_checksum(&[&bytes]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(segment);
        bytes
    }

    fn datagram_v6(&self, source: Ipv6Addr, destination: Ipv6Addr, segment: &[u8]) -> Vec<u8> {
        let mut kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        kinds.push(self.protocol());
        let mut extensions = Vec::new();
        for ((kind, content), next) in self.extensions.iter().zip(&kinds[1..]) {
            extensions.push(*next);
            extensions.extend(&content[1..]);
            if *kind == 44 {
                extensions.extend(self.identification.to_be_bytes());
            }
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length(extensions.len() + segment.len()));
        bytes.extend([kinds[0], 64]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(extensions);
        bytes.extend(segment);
        bytes
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .expect("at most 65535 bytes")
        .to_be_bytes()
}

#[cfg(test)]
mod tests;
