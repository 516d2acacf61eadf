//! The sample of decisions that the kernel programs write, in the agent's log: drops for everybody, the rest for who
//! asks (`--log debug`); of each kind one line a second, however many packets a flood has.
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use lb_common::{Counter, Event, Ipv4Address, Ipv6Address, Port, Protocol};
use nix::net::if_::if_indextoname;

use crate::supervise::Tasks;

/// How long an event may wait: soon enough for a person.
const PAUSE: Duration = Duration::from_millis(250);

/// At most one line of a kind in this time.
const LINE_PAUSE: Duration = Duration::from_secs(1);

/// More than the buffer holds: a flood that fills it as fast as it is read does not keep the reader for ever.
const MOST_AT_ONCE: usize = 8192;

/// Writes events to the log until the program ends. Programs without the map have none to show.
pub fn forward(ebpf: &mut Ebpf, tasks: &Tasks) {
    let events = ebpf
        .take_map("EVENTS")
        .and_then(|map| RingBuf::try_from(map).ok());
    let Some(events) = events else {
        tracing::debug!("the kernel programs have no events");
        return;
    };
    tasks.spawn("reader of datapath events", read(events));
}

async fn read(mut events: RingBuf<MapData>) {
    let start = tokio::time::Instant::now();
    let mut pause = tokio::time::interval(PAUSE);
    let mut limiter = Limiter::default();
    loop {
        pause.tick().await;
        for _ in 0..MOST_AT_ONCE {
            let Some(record) = events.next() else { break };
            if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&record) {
                show(&event, &mut limiter, start.elapsed());
            }
        }
    }
}

fn show(event: &Event, limiter: &mut Limiter, now: Duration) {
    let Some(counter) = Counter::ALL
        .iter()
        .find(|counter| **counter as u32 == event.counter)
    else {
        return;
    };
    let Some(left_out) = limiter.admit(*counter, now) else {
        return;
    };
    let name = counter.name();
    if name.starts_with("drop_") {
        tracing::info!(
            left_out,
            "{name}: {} (a sample: see the counters in `waggle status`)",
            Shown(event)
        );
    } else {
        tracing::debug!(left_out, "{name}: {}", Shown(event));
    }
}

/// Decides which events get a line.
#[derive(Debug, Default)]
struct Limiter(BTreeMap<Counter, Line>);

/// The last line of a kind.
#[derive(Debug)]
struct Line {
    at: Duration,
    /// How many events of the kind have had none since.
    left_out: u64,
}

impl Limiter {
    /// How many events of the kind were left out since its last line, if this one gets a line. `now` is the time since
    /// any fixed moment.
    fn admit(&mut self, counter: Counter, now: Duration) -> Option<u64> {
        let Some(line) = self.0.get_mut(&counter) else {
            let first = Line {
                at: now,
                left_out: 0,
            };
            self.0.insert(counter, first);
            return Some(0);
        };
        if now < line.at + LINE_PAUSE {
            line.left_out += 1;
            return None;
        }
        line.at = now;
        Some(std::mem::take(&mut line.left_out))
    }
}

/// An event as a person reads it: `tcp 10.244.1.9:40000 -> 10.103.145.6:80 on veth1`. A ping and a later fragment have no
/// ports.
struct Shown<'a>(&'a Event);

impl Shown<'_> {
    fn address(&self, words: [u32; 4]) -> IpAddr {
        let [first, ..] = words;
        if self.0.version == 4 {
            Ipv4Address([first]).into()
        } else {
            Ipv6Address(words).into()
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        match (Protocol::from_number(event.protocol), event.protocol) {
            (Some(protocol), _) => write!(f, "{protocol} ")?,
            (None, 1 | 58) => f.write_str("icmp ")?,
            (None, number) => write!(f, "protocol {number} ")?,
        }
        let (from, to) = (self.address(event.source), self.address(event.destination));
        let (source, destination) = (event.source_port, event.destination_port);
        if (source, destination) == (Port::ZERO, Port::ZERO) {
            write!(f, "{from} -> {to} on ")?;
        } else {
            let from = SocketAddr::new(from, source.number());
            let to = SocketAddr::new(to, destination.number());
            write!(f, "{from} -> {to} on ")?;
        }
        // nix 0.31 takes the null pointer for an answer: a device that is not there has an empty name.
        match if_indextoname(event.interface)
            .ok()
            .and_then(|name| name.into_string().ok())
            .filter(|name| !name.is_empty())
        {
            Some(name) => f.write_str(&name),
            None => write!(f, "interface {}", event.interface),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_flood_has_one_line_a_second_of_each_kind_which_counts_what_was_left_out() {
        let mut limiter = Limiter::default();
        let (flood, other) = (Counter::DropNoFlow, Counter::DropNoBackend);
        let lines: Vec<_> = (0..2500)
            .filter_map(|millisecond| {
                let left_out = limiter.admit(flood, Duration::from_millis(millisecond))?;
                Some((millisecond, left_out))
            })
            .collect();
        assert_eq!(lines, [(0, 0), (1000, 999), (2000, 999)]);
        let moment = Duration::from_millis(2500);
        assert_eq!(limiter.admit(other, moment), Some(0), "the flood hides it");
        assert_eq!(limiter.admit(other, moment), None);
        assert_eq!(limiter.admit(flood, Duration::from_secs(9)), Some(499));
    }

    #[test]
    fn an_event_reads_as_a_packet_and_its_place() {
        let [source] = Ipv4Address::from(Ipv4Addr::new(10, 244, 1, 9)).0;
        let [destination] = Ipv4Address::from(Ipv4Addr::new(10, 103, 145, 6)).0;
        let event = Event {
            source: [source, 0, 0, 0],
            destination: [destination, 0, 0, 0],
            source_port: Port::new(40_000),
            destination_port: Port::new(80),
            version: 4,
            protocol: 6,
            interface: u32::MAX,
            ..Event::default()
        };
        assert_eq!(
            Shown(&event).to_string(),
            "tcp 10.244.1.9:40000 -> 10.103.145.6:80 on interface 4294967295"
        );
        let ping = Event {
            source_port: Port::ZERO,
            destination_port: Port::ZERO,
            protocol: 1,
            ..event
        };
        assert_eq!(
            Shown(&ping).to_string(),
            "icmp 10.244.1.9 -> 10.103.145.6 on interface 4294967295"
        );
    }
}
