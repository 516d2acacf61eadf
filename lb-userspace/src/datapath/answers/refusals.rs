//! Tells the senders of packets that nobody will answer: ICMP port unreachable, as kube-proxy's `reject` does, where a
//! service has no backend, and a TCP reset where nobody knows the connection (any more). Clients fail at once and do not
//! wait. The kernel programs drop the packet and leave its first bytes in REFUSALS; the
//! answer is made here, because the packet itself cannot become one: its device may still have to finish a checksum in
//! it, and would spoil what the answer quotes.
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use lb_common::{Ipv4Address, Ipv6Address, Refusal, RefusalKind};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::datapath::answers::resets;
use crate::supervise::Tasks;

/// At most so many answers a second, and so many at once: a flood to a service without backends makes no flood of ours.
const ANSWERS_A_SECOND: u32 = 1000;

/// ICMP destination unreachable, port unreachable (RFC 792).
const UNREACHABLE_V4: [u8; 2] = [3, 3];
/// `ICMPv6` destination unreachable, port unreachable (RFC 4443, section 3.1).
const UNREACHABLE_V6: [u8; 2] = [1, 4];

/// Answers until the program ends.
pub fn answer(ebpf: &mut Ebpf, tasks: &Tasks) {
    let refusals = ebpf
        .take_map("REFUSALS")
        .and_then(|map| RingBuf::try_from(map).ok());
    let Some(refusals) = refusals else {
        tracing::debug!("the kernel programs have no refusals");
        return;
    };
    let begun = Sockets::open()
        .and_then(|sockets| tasks.thread("refusals", move || read(refusals, &sockets)));
    if let Err(error) = begun {
        tracing::warn!(
            "clients whom nobody answers will wait rather than be refused: no raw socket ({error}); it needs CAP_NET_RAW"
        );
    }
}

/// Ends with the program.
#[expect(
    clippy::disallowed_methods,
    reason = "a loop that waits must read the clock"
)]
fn read(mut refusals: RingBuf<MapData>, sockets: &Sockets) {
    let start = Instant::now();
    let mut allowance = Allowance::default();
    loop {
        while let Some(record) = refusals.next() {
            let refusal = bytemuck::try_pod_read_unaligned::<Refusal>(&record);
            let Ok(refusal) = refusal else { continue };
            let now = start.elapsed();
            if !allowance.take(now) {
                // The buffer fills meanwhile, and then a flood costs the kernel little and the agent nothing.
                let next = Duration::from_secs(now.as_secs() + 1);
                std::thread::sleep(next.saturating_sub(now));
            } else if let Err(error) = sockets.send(&refusal) {
                tracing::debug!("a refusal could not be sent: {error}");
            }
        }
        let mut waiting = [PollFd::new(refusals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!("clients are no longer refused: poll: {error}");
                return;
            }
        }
    }
}

struct Sockets {
    v4: Socket,
    /// None where the node has no IPv6.
    v6: Option<Socket>,
    resets: resets::Sockets,
}

impl Sockets {
    fn open() -> io::Result<Self> {
        let open = |domain, protocol| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.set_nonblocking(true)?;
            // They are for sending: what comes in is others'.
            socket.set_recv_buffer_size(0)?;
            io::Result::Ok(socket)
        };
        Ok(Self {
            v4: open(Domain::IPV4, Protocol::ICMPV4)?,
            v6: open(Domain::IPV6, Protocol::ICMPV6).ok(),
            resets: resets::Sockets::open()?,
        })
    }

    fn send(&self, refusal: &Refusal) -> io::Result<()> {
        let (sender, _) = resets::ends(refusal);
        if !may_be_answered(sender) {
            return Ok(());
        }
        if refusal.kind == RefusalKind::Reset as u8 {
            return self.resets.send(refusal);
        }
        let message = message(refusal);
        let socket = match sender {
            IpAddr::V4(_) => Some(&self.v4),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        let to = SocketAddr::new(sender, 0).into();
        socket.map_or(Ok(()), |socket| socket.send_to(&message, &to).map(drop))
    }
}

/// Whether a sender is somebody: others may not be answered (RFC 1122, section 3.2.2).
fn may_be_answered(sender: IpAddr) -> bool {
    let is_somebody = !sender.is_unspecified() && !sender.is_multicast() && !sender.is_loopback();
    is_somebody && sender != IpAddr::from([255; 4])
}

/// The ICMP header, an IP header as the packet had it where it matters, and the packet's first bytes.
fn message(refusal: &Refusal) -> Vec<u8> {
    let ([source, ..], [destination, ..]) = (refusal.source, refusal.destination);
    if refusal.version == 4 {
        message_v4(refusal, Ipv4Address([source]), Ipv4Address([destination]))
    } else {
        message_v6(refusal)
    }
}

/// What is quoted of the transport header.
fn quoted(refusal: &Refusal) -> impl Iterator<Item = u8> {
    refusal.transport.into_iter().take(8)
}

fn message_v4(refusal: &Refusal, source: Ipv4Address, destination: Ipv4Address) -> Vec<u8> {
    const LENGTH: u8 = 20 + 8;
    let mut header = vec![0x45, 0, 0, LENGTH, 0, 0, 0, 0, 64, refusal.protocol, 0, 0];
    header.extend(<[u8; 4]>::from(source));
    header.extend(<[u8; 4]>::from(destination));
    put_checksum(&mut header, 10);
    let mut message = UNREACHABLE_V4.to_vec();
    message.extend([0; 6]);
    message.extend(header);
    message.extend(quoted(refusal));
    put_checksum(&mut message, 2);
    message
}

/// The kernel adds the checksum, which covers addresses it has yet to choose (RFC 3542, section 3.1).
fn message_v6(refusal: &Refusal) -> Vec<u8> {
    const LENGTH: u8 = 8;
    let mut message = UNREACHABLE_V6.to_vec();
    message.extend([0; 6]);
    message.extend([0x60, 0, 0, 0, 0, LENGTH, refusal.protocol, 64]);
    message.extend(<[u8; 16]>::from(Ipv6Address(refusal.source)));
    message.extend(<[u8; 16]>::from(Ipv6Address(refusal.destination)));
    message.extend(quoted(refusal));
    message
}

/// The internet checksum (RFC 1071) of bytes whose own field at `at` is zero.
fn put_checksum(bytes: &mut [u8], at: usize) {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&[high, low]);
    }
}

/// How much may be sent.
#[derive(Debug, Default)]
struct Allowance {
    /// The second it is for.
    second: u64,
    used: u32,
}

impl Allowance {
    /// Whether one more may be sent at `now`, the time since any fixed moment.
    fn take(&mut self, now: Duration) -> bool {
        if now.as_secs() != self.second {
            *self = Self {
                second: now.as_secs(),
                used: 0,
            };
        }
        self.used += 1;
        self.used <= ANSWERS_A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn refusal(source: [u8; 4]) -> Refusal {
        Refusal {
            source: [Ipv4Address::from(source).0[0], 0, 0, 0],
            destination: [Ipv4Address::from([10, 96, 0, 1]).0[0], 0, 0, 0],
            transport: [0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 2, 9, 9],
            length: 20,
            version: 4,
            protocol: 6,
            kind: RefusalKind::Unreachable as u8,
            spare: 0,
        }
    }

    #[test]
    fn the_sender_finds_its_packet_quoted() {
        let message = message(&refusal([10, 244, 1, 9]));
        let expected = [
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 6, 0x64, 0x7f, 10, 244, 1, 9, 10, 96, 0, 1, // IP
            0x9c, 0x40, 0, 80, 1, 2, 3, 4, // TCP
        ];
        assert_eq!(message[..2], UNREACHABLE_V4);
        assert_eq!(message[8..], expected);
        // Summed with its own field, a message has nothing but ones (RFC 1071).
        let mut whole = message.clone();
        whole.extend([0, 0]);
        let end = whole.len() - 2;
        put_checksum(&mut whole, end);
        assert_eq!(whole[end..], [0, 0]);
        let mut header = message[8..28].to_vec();
        header.extend([0, 0]);
        put_checksum(&mut header, 20);
        assert_eq!(header[20..], [0, 0]);
    }

    #[test]
    fn a_quoted_ipv6_header_has_the_packets_addresses() {
        let (source, destination): (Ipv6Addr, Ipv6Addr) =
            ("fd00::9".parse().unwrap(), "fd00:96::1".parse().unwrap());
        let refusal = Refusal {
            source: Ipv6Address::from(source).0,
            destination: Ipv6Address::from(destination).0,
            version: 6,
            protocol: 17,
            ..refusal([0; 4])
        };
        let message = message(&refusal);
        assert_eq!(message[..2], UNREACHABLE_V6);
        assert_eq!(message[8..16], [0x60, 0, 0, 0, 0, 8, 17, 64]);
        assert_eq!(message[16..32], source.octets());
        assert_eq!(message[32..48], destination.octets());
        assert_eq!(message[48..], refusal.transport[..8]);
    }

    #[test]
    fn nobody_in_particular_is_not_answered() {
        for source in [
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::new(224, 0, 0, 1),
        ] {
            assert!(!may_be_answered(source.into()), "{source}");
        }
    }

    #[test]
    fn a_flood_gets_a_thousand_answers_a_second() {
        let mut allowance = Allowance::default();
        let now = Duration::from_millis;
        let sent = (0..5000).filter(|_| allowance.take(now(300))).count();
        assert_eq!(sent, 1000);
        assert!(!allowance.take(now(999)) && allowance.take(now(1000)));
    }
}
