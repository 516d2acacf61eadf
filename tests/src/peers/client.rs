//! Clients that ask who is behind an address, and what a client sees if nobody is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How an attempt ends without an answer, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The client is told at once: a reset, or ICMP port unreachable.
    Refused,
    /// A router says that there is no way: the address belongs to nobody.
    Unreachable,
    /// Nothing comes back.
    Silence,
}

/// Everything that attempts of one kind came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// The pods that answered, and the addresses they saw.
    pub pods: BTreeMap<String, BTreeSet<IpAddr>>,
    /// How the others ended.
    pub failures: BTreeSet<Failure>,
}

/// How often to try, and how long to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Attempts, if there are answers at all.
    pub tries: usize,
    /// What an attempt may take.
    pub limit: Duration,
}

impl Met {
    /// What a client would remember of it: of several failures the most telling one, for ICMP errors are limited by rate.
    fn settled(mut self) -> Self {
        let telling = self.failures.pop_first();
        self.failures = telling.into_iter().collect();
        self
    }
}

impl fmt::Display for Met {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = self.failures.iter().map(|failure| format!("{failure:?}"));
        let pods = self
            .pods
            .iter()
            .map(|(pod, seen)| format!("{pod} (sees {})", join(seen, "|")));
        formatter.write_str(&join(failures.chain(pods), ", "))
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(between)
}

/// Tries again and again, from the calling thread's namespace; gives up early where nobody answers.
pub(super) async fn ask(protocol: Protocol, to: SocketAddr, effort: Effort) -> Result<Met> {
    let mut met = Met::default();
    for attempt in 0..effort.tries {
        let answer = match protocol {
            Protocol::Tcp => by_tcp(to, effort.limit).await,
            Protocol::Udp => by_udp(to, effort.limit).await,
        };
        match answer.with_context(|| format!("{protocol:?} {to}"))? {
            Ok(text) => {
                let (pod, seen) = text
                    .split_once(' ')
                    .with_context(|| format!("{to} answers {text:?}"))?;
                let of_pod = met.pods.entry(pod.to_owned()).or_default();
                of_pod.insert(seen.parse().with_context(|| seen.to_owned())?);
            }
            Err(failure) => {
                met.failures.insert(failure);
            }
        }
        if attempt > 0 && met.pods.is_empty() {
            break;
        }
    }
    Ok(met.settled())
}

/// A port that this process has not used lately: of two frontends with one backend only one can have a client's port.
fn any_like(to: SocketAddr) -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let port = 33_000 + GIVEN.fetch_add(1, Ordering::Relaxed) % 27_000;
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

async fn by_tcp(to: SocketAddr, limit: Duration) -> Result<Result<String, Failure>> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_zero_linger()?;
    socket.set_reuseaddr(true)?;
    // Another program's connection may have the port.
    while let Err(error) = socket.bind(any_like(to)) {
        ensure!(error.kind() == ErrorKind::AddrInUse, "bind: {error}");
    }
    let conversation = async {
        let stream = socket.connect(to).await?;
        let mut buffer = [0; 128];
        let count = loop {
            stream.readable().await?;
            match stream.try_read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        Ok(text(&buffer, count))
    };
    match timeout(limit, conversation).await {
        Ok(result) => judged(result),
        Err(_) => Ok(Err(Failure::Silence)),
    }
}

async fn by_udp(to: SocketAddr, limit: Duration) -> Result<Result<String, Failure>> {
    let socket = loop {
        match UdpSocket::bind(any_like(to)).await {
            Ok(socket) => break socket,
            Err(error) => ensure!(error.kind() == ErrorKind::AddrInUse, "bind: {error}"),
        }
    };
    let conversation = async {
        socket.connect(to).await?;
        match socket.send(b"who").await {
            // What the node's own firewall refuses is told twice; the second word says how.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut buffer = [0; 128];
        let count = socket.recv(&mut buffer).await?;
        Ok(text(&buffer, count))
    };
    match timeout(limit, conversation).await {
        Ok(result) => judged(result),
        Err(_) => Ok(Err(Failure::Silence)),
    }
}

fn text(buffer: &[u8], count: usize) -> String {
    String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned()
}

fn judged(result: io::Result<String>) -> Result<Result<String, Failure>> {
    let error = match result {
        Ok(text) => return Ok(Ok(text)),
        Err(error) => error,
    };
    let is_one_of = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
    if is_one_of(&[ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset]) {
        Ok(Err(Failure::Refused))
    } else if is_one_of(&[ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable]) {
        Ok(Err(Failure::Unreachable))
    } else if is_one_of(&[ErrorKind::PermissionDenied, ErrorKind::TimedOut]) {
        Ok(Err(Failure::Silence))
    } else {
        Err(error.into())
    }
}
