//! The sample of decisions that the kernel programs write, in the agent's log: drops for everybody, the rest for who
//! asks (`--log debug`).
use std::{fmt, net::IpAddr, time::Duration};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use lb_common::{Counter, Event, Ipv4Address, Ipv6Address, Protocol};
use nix::net::if_::if_indextoname;

/// How long an event may wait: soon enough for a person.
const PAUSE: Duration = Duration::from_millis(250);

/// Writes events to the log until the program ends. Programs without the map have none to show.
pub fn forward(ebpf: &mut Ebpf) {
    let events = ebpf
        .take_map("EVENTS")
        .and_then(|map| RingBuf::try_from(map).ok());
    let Some(events) = events else {
        tracing::debug!("the kernel programs have no events");
        return;
    };
    drop(tokio::spawn(read(events)));
}

async fn read(mut events: RingBuf<MapData>) {
    let mut pause = tokio::time::interval(PAUSE);
    loop {
        pause.tick().await;
        while let Some(record) = events.next() {
            if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&record) {
                show(&event);
            }
        }
    }
}

fn show(event: &Event) {
    let Some(counter) = Counter::ALL
        .iter()
        .find(|counter| **counter as u32 == event.counter)
    else {
        return;
    };
    let name = counter.name();
    if name.starts_with("drop_") {
        tracing::info!(
            "{name}: {} (a sample: see the counters in `waggle status`)",
            Shown(event)
        );
    } else {
        tracing::debug!("{name}: {}", Shown(event));
    }
}

/// An event as a person reads it: `tcp 10.244.1.9:40000 -> 10.103.145.6:80 on veth1`.
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
        match Protocol::from_number(event.protocol) {
            Some(protocol) => write!(f, "{protocol} ")?,
            None => write!(f, "protocol {} ", event.protocol)?,
        }
        let source = (self.address(event.source), event.source_port.number());
        let destination = (
            self.address(event.destination),
            event.destination_port.number(),
        );
        write!(
            f,
            "{} -> {} on ",
            std::net::SocketAddr::from(source),
            std::net::SocketAddr::from(destination)
        )?;
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

    use lb_common::Port;

    use super::*;

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
    }
}
