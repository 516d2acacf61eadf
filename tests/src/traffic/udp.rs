//! UDP: a server that says which pod answers, and clients bound and connected as tests want them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::machine::netns::Namespace;

/// How often the server looks whether it should end.
const TICK: Duration = Duration::from_millis(20);

/// Answers each datagram with `<pod> <peer address> <what was sent>`, in both families.
#[derive(Debug)]
pub struct UdpServer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl UdpServer {
    /// Starts it on `port` in `namespace`; it listens when this returns.
    pub fn start(namespace: &Namespace, pod: &str, port: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for any in [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ] {
            let socket = namespace.run(|| bind_one_family((any, port).into()))?;
            socket.set_read_timeout(Some(TICK))?;
            let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
            let pod = pod.to_owned();
            let answer = move || answer_until(&socket, &pod, &stop, &received);
            threads.push(namespace.start(answer)?);
        }
        Ok(Self {
            stop,
            received,
            threads,
        })
    }

    /// How many datagrams have come.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// A socket for one family only, so that both families can have the port.
fn bind_one_family(address: SocketAddr) -> Result<UdpSocket> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd as _;
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let made = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&made, sockopt::Ipv6V6Only, &true)?;
    }
    bind(made.as_raw_fd(), &SockaddrStorage::from(address))
        .with_context(|| format!("bind {address}"))?;
    Ok(made.into())
}

fn answer_until(
    socket: &UdpSocket,
    pod: &str,
    stop: &AtomicBool,
    received: &AtomicU64,
) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((count, peer)) => {
                received.fetch_add(1, Ordering::Relaxed);
                let mut answer = format!("{pod} {} ", peer.ip()).into_bytes();
                answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
                // A peer that is gone (ICMP) is no reason to stop serving the others.
                drop(socket.send_to(&answer, peer));
            }
            Err(error) if is_timeout(&error) => {}
            // The answer to a peer that is gone comes back as an error of the next call.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error).context("receive"),
        }
    }
    Ok(())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// The wildcard address of the family of `like`, with a port.
pub fn any_like(like: SocketAddr, port: u16) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// One answer to one datagram: who sent it by its source address, and what the server said.
#[derive(Clone, Debug)]
pub struct UdpAnswer {
    /// Where the answer came from, as the socket shows it.
    pub from: SocketAddr,
    /// The pod that answered.
    pub pod: String,
    /// The client's address as the server saw it.
    pub seen_as: String,
}

/// Sends `text` from an unconnected socket and waits for the answer; `None` if none comes in time.
pub fn exchange(socket: &UdpSocket, to: SocketAddr, text: &str) -> Result<Option<UdpAnswer>> {
    socket
        .send_to(text.as_bytes(), to)
        .with_context(|| format!("send to {to}"))?;
    receive(socket, text)
}

/// Sends `text` over a connected socket and waits for the answer; `None` if none comes in time.
pub fn exchange_connected(socket: &UdpSocket, text: &str) -> Result<Option<UdpAnswer>> {
    socket.send(text.as_bytes()).context("send")?;
    receive(socket, text)
}

/// Waits for the answer to `text`, past answers to other texts.
fn receive(socket: &UdpSocket, text: &str) -> Result<Option<UdpAnswer>> {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((count, from)) => {
                let answer = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
                let mut words = answer.splitn(3, ' ');
                let (Some(pod), Some(seen_as), Some(rest)) =
                    (words.next(), words.next(), words.next())
                else {
                    continue;
                };
                if rest == text {
                    return Ok(Some(UdpAnswer {
                        from,
                        pod: pod.to_owned(),
                        seen_as: seen_as.to_owned(),
                    }));
                }
            }
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(error).context("receive"),
        }
    }
}
