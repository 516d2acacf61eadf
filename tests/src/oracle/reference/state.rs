//! What the reference knows and remembers.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use lb_common::{BackendState, Counter, Ipv4Address, Ipv6Address, hash::address_class};

use super::{Admission, Awaited, Backend, Device, End, FirstPiece, Key, Passing, Service};
use crate::{
    memory_clock::JIFFIES_PER_SECOND,
    packets::dissect::{UDP, flag, without_ports::Datagram},
};

/// What is remembered under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each compared on its own"
)]
pub struct Half {
    /// Which end is rewritten.
    pub end: End,
    /// What it becomes; port 0: not decided yet.
    pub to: SocketAddr,
    /// What the other end's port becomes, where another flow has the tuple with the client's own.
    pub other_port: Option<u16>,
    /// The backend.
    pub backend: u32,
    /// Its generation then.
    pub generation: u32,
    /// The service it served then.
    pub service: u32,
    /// The client's direction.
    pub is_request: bool,
    /// It is in FLOWS.
    pub is_proven: bool,
    /// It has carried a FIN.
    pub fin: bool,
    /// It has carried a RST.
    pub rst: bool,
    /// The backend has answered.
    pub is_replied: bool,
    /// The request wants a masquerade.
    pub masquerade: bool,
    /// What acknowledgement proves the client.
    pub expected_ack: Option<u32>,
    /// It has proven itself and found FLOWS full.
    pub is_crowded: bool,
    /// When the last packet passed, written at most once a second.
    pub last_seen: u32,
}

impl Half {
    /// Whether the client opened the flow to the backend itself.
    pub(super) fn is_direct(&self) -> bool {
        self.service == 0 && !self.masquerade
    }
    /// Whether its packets stay as they are.
    pub(super) fn changes_nothing(&self) -> bool {
        self.is_direct() && self.other_port.is_none()
    }
}

/// Everything the naive balancer knows.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// (address, protocol) to service.
    pub frontends: HashMap<(SocketAddr, u8), u32>,
    /// The addresses of backends, at which connections are followed: (address, protocol) to whether everybody's are, or
    /// pods' alone.
    pub direct: HashMap<(SocketAddr, u8), bool>,
    /// Services by id.
    pub services: HashMap<u32, Service>,
    /// Backends by id.
    pub backends: HashMap<u32, Backend>,
    /// Devices by interface index.
    pub devices: HashMap<u32, Device>,
    /// Who may dial what.
    pub admission: Admission,
    /// How the addresses of pods begin.
    pub pods: Vec<Vec<u8>>,
    /// (bridge, address) to Ethernet address.
    pub neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    /// What is remembered.
    pub halves: BTreeMap<Key, Half>,
    /// The UDP replies that are expected.
    pub awaited: BTreeMap<Key, Awaited>,
    /// What the first pieces of datagrams became.
    pub pieces: BTreeMap<(Datagram, End), FirstPiece>,
    /// Classes of destinations with unproven flows that must be found although no frontend leads to them.
    pub unlisted: BTreeSet<usize>,
    /// How many entries FLOWS may have, each family.
    pub proven_capacity: usize,
    /// How many UDP flows a client may prove in a minute.
    pub udp_flows_per_client: u32,
    /// The time, in jiffies.
    pub now: u32,
    /// What was counted.
    pub counters: BTreeMap<Counter, u64>,
    /// Client to the start of its minute and the UDP flows it has proven since.
    pub udp_clients: HashMap<IpAddr, (u32, u32)>,
}

impl World {
    pub(super) fn find(&self, key: &Key, end: End) -> Option<Half> {
        self.halves.get(key).filter(|half| half.end == end).cloned()
    }

    pub(super) fn is_free(&self, key: &Key) -> bool {
        !self.halves.contains_key(key)
    }

    pub(super) fn count(&mut self, counter: Counter) {
        *self.counters.entry(counter).or_default() += 1;
    }

    pub(super) fn passed(&self, since: u32, seconds: u32) -> bool {
        self.now.wrapping_sub(since) >= seconds * JIFFIES_PER_SECOND
    }

    /// What a packet of this direction looks like when it goes on.
    pub(super) fn translated(key: &Key, half: &Half) -> Key {
        let mut translated = key.crossed();
        let other_end = match half.end {
            End::Destination => {
                translated.destination = half.to;
                &mut translated.source
            }
            End::Source => {
                translated.source = half.to;
                &mut translated.destination
            }
        };
        if let Some(port) = half.other_port {
            other_end.set_port(port);
        }
        translated
    }

    /// The key of the other direction: what a packet of this one looks like when it is answered.
    pub(super) fn other_key(key: &Key, half: &Half) -> Key {
        Self::translated(key, half).reversed()
    }

    pub(super) fn other_half_mut(&mut self, key: &Key) -> Option<&mut Half> {
        let other = Self::other_key(key, self.halves.get(key)?);
        self.halves.get_mut(&other)
    }

    /// Notes that a packet passed.
    pub(super) fn pass_by(&mut self, passing: &Passing<'_>) {
        let now = self.now;
        let last_seen = self.halves[&passing.key].last_seen;
        let is_due = self.passed(last_seen, 1);
        let is_gone = self.is_gone(&self.halves[&passing.key]);
        let half = self.halves.get_mut(&passing.key).expect("a known flow");
        if is_due {
            half.last_seen = now;
        }
        if passing.packet.protocol != UDP {
            let has = |bits| passing.packet.flags & bits != 0;
            // Nobody goes on who has reset.
            if half.rst && !is_gone && !has(flag::RST | flag::SYN) {
                (half.fin, half.rst) = (false, false);
            }
            half.fin |= has(flag::FIN);
            half.rst |= has(flag::RST);
        }
    }

    /// Whether its backend still is its service's, in a state that will do.
    pub(super) fn backend_is(&self, half: &Half, will_do: impl Fn(BackendState) -> bool) -> bool {
        half.service == 0
            || self.backends.get(&half.backend).is_some_and(|backend| {
                will_do(backend.state)
                    && backend.generation == half.generation
                    && backend.service == half.service
            })
    }

    /// Its pod will never answer again.
    pub(super) fn is_gone(&self, half: &Half) -> bool {
        let backend = self.backends.get(&half.backend);
        half.service != 0
            && backend.is_none_or(|backend| {
                backend.state == BackendState::Gone || backend.generation != half.generation
            })
    }

    /// Reset by the pod, or closed by the pod and closed or reset by the client.
    pub(super) fn is_over(&self, key: &Key) -> bool {
        let Some(half) = self.halves.get(key) else {
            return true;
        };
        let other = self.halves.get(&Self::other_key(key, half));
        let (own, other) = (
            (half.fin, half.rst),
            other.map_or((false, false), |it| (it.fin, it.rst)),
        );
        let (client, pod) = if half.is_request {
            (own, other)
        } else {
            (other, own)
        };
        pod.1 || pod.0 && (client.0 || client.1)
    }

    /// Whether unproven flows to this destination are looked for without a frontend.
    pub(super) fn is_lodging(&self, destination: IpAddr) -> bool {
        self.unlisted.contains(&class_of(destination))
    }
}

pub(super) fn class_of(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => address_class(Ipv4Address::from(address).as_ref()),
        IpAddr::V6(address) => address_class(Ipv6Address::from(address).as_ref()),
    }
}
