//! What the reference knows and remembers.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::{BackendState, Counter, Ipv4Address, Ipv6Address, hash::address_class};

use super::{Backend, Device, End, Masqueraded, Passing, Service, objects::begins_with_one_of};
use crate::{
    dissect::{TCP, flag},
    memory_clock::JIFFIES_PER_SECOND,
};

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Who sends.
    pub source: SocketAddr,
    /// Who receives.
    pub destination: SocketAddr,
    /// TCP or UDP.
    pub protocol: u8,
}

impl Key {
    pub(super) fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
        }
    }
}

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

/// Everything the naive balancer knows.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// (address, protocol) to service.
    pub frontends: HashMap<(SocketAddr, u8), u32>,
    /// Services by id.
    pub services: HashMap<u32, Service>,
    /// Backends by id.
    pub backends: HashMap<u32, Backend>,
    /// Devices by interface index.
    pub devices: HashMap<u32, Device>,
    /// How the addresses of pods begin.
    pub pods: Vec<Vec<u8>>,
    /// (bridge, address) to Ethernet address.
    pub neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    /// What is remembered.
    pub halves: BTreeMap<Key, Half>,
    /// Classes of destinations with unproven flows that must be found although no frontend leads to them.
    pub lodgers: BTreeSet<usize>,
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

    /// The key of the other direction: what a packet of this one looks like when it is answered.
    fn other_key(key: &Key, half: &Half) -> Key {
        let mut translated = *key;
        match half.end {
            End::Destination => translated.destination = half.to,
            End::Source => translated.source = half.to,
        }
        translated.reversed()
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
        let half = self.halves.get_mut(&passing.key).expect("a known flow");
        if is_due {
            half.last_seen = now;
        }
        if passing.packet.protocol == TCP {
            half.fin |= passing.packet.flags & flag::FIN != 0;
            half.rst |= passing.packet.flags & flag::RST != 0;
        }
    }

    pub(super) fn is_member(&self, half: &Half) -> bool {
        self.backends.get(&half.backend).is_some_and(|backend| {
            backend.state == BackendState::Active
                && backend.generation == half.generation
                && backend.service == half.service
        })
    }

    /// Its pod will never answer again.
    pub(super) fn is_gone(&self, half: &Half) -> bool {
        let backend = self.backends.get(&half.backend);
        backend.is_none_or(|backend| {
            backend.state == BackendState::Gone || backend.generation != half.generation
        })
    }

    /// Reset by either, or closed by both.
    pub(super) fn is_over(&self, key: &Key) -> bool {
        let Some(half) = self.halves.get(key) else {
            return true;
        };
        let other = self.halves.get(&Self::other_key(key, half));
        let (fin, rst) = other.map_or((false, false), |other| (other.fin, other.rst));
        half.rst || rst || (half.fin && fin)
    }

    pub(super) fn forget(&mut self, key: &Key) {
        let Some(half) = self.halves.remove(key) else {
            return;
        };
        self.halves.remove(&Self::other_key(key, &half));
        if half.masquerade {
            let towards_backend = Key {
                destination: half.to,
                ..*key
            };
            if let Some(outgoing) = self.halves.remove(&towards_backend) {
                self.halves
                    .remove(&Self::other_key(&towards_backend, &outgoing));
            }
        }
    }

    fn answer_key(passing: &Passing<'_>, backend: SocketAddr) -> Key {
        Key {
            source: backend,
            destination: passing.key.source,
            protocol: passing.key.protocol,
        }
    }

    /// Whether a new flow may go to this backend: no living flow of another frontend has its reply tuple.
    pub(super) fn may_have(&self, passing: &Passing<'_>, id: u32) -> bool {
        let answer = Self::answer_key(passing, self.backends[&id].address);
        let Some(owner) = self.halves.get(&answer) else {
            return true;
        };
        let is_ours = owner.end == End::Source && owner.to == passing.key.destination;
        let is_silent = !owner.is_proven && self.passed(owner.last_seen, 60);
        is_ours || is_silent || self.is_over(&answer)
    }

    /// Remembers a new flow: both directions, unproven.
    pub(super) fn remember(&mut self, passing: &Passing<'_>, id: u32) {
        let backend = self.backends[&id].clone();
        let client = passing.key.source.ip();
        let is_stranger = match self.services[&backend.service].masqueraded {
            Masqueraded::Nobody => false,
            Masqueraded::Strangers => !begins_with_one_of(client, &self.pods),
            Masqueraded::Everybody => true,
        };
        let masquerade = is_stranger || backend.address.ip() == client;
        let request = Half {
            end: End::Destination,
            to: backend.address,
            backend: id,
            generation: backend.generation,
            service: backend.service,
            is_request: true,
            is_proven: false,
            fin: false,
            rst: false,
            is_replied: false,
            is_crowded: false,
            masquerade,
            expected_ack: None,
            last_seen: self.now,
        };
        let reply = Half {
            end: End::Source,
            to: passing.key.destination,
            is_request: false,
            ..request.clone()
        };
        self.halves
            .insert(Self::answer_key(passing, backend.address), reply);
        self.halves.insert(passing.key, request);
        self.want_masquerade(&passing.key);
    }

    /// Notes that what a hairpin's request becomes must be masqueraded on egress, if it is not noted yet.
    pub(super) fn want_masquerade(&mut self, key: &Key) {
        let request = self.halves[key].clone();
        let outgoing = Key {
            destination: request.to,
            ..*key
        };
        if !request.masquerade || request.is_proven || self.halves.contains_key(&outgoing) {
            return;
        }
        let half = Half {
            end: End::Source,
            to: SocketAddr::new(unspecified(request.to), 0),
            fin: false,
            rst: false,
            is_replied: false,
            is_crowded: false,
            expected_ack: None,
            last_seen: self.now,
            ..request
        };
        self.halves.insert(outgoing, half);
    }

    /// Remembers the masquerade of a request, and the way back.
    pub(super) fn remember_masquerade(
        &mut self,
        outgoing: &Key,
        back: Key,
        to: SocketAddr,
        half: &Half,
    ) {
        let outgoing_half = Half {
            to,
            last_seen: self.now,
            ..half.clone()
        };
        let returning = Half {
            end: End::Destination,
            to: outgoing.source,
            is_request: false,
            fin: false,
            rst: false,
            ..outgoing_half.clone()
        };
        self.lodgers.insert(class_of(back.destination.ip()));
        self.halves.insert(back, returning);
        self.halves.insert(*outgoing, outgoing_half);
    }

    /// Whether unproven flows to this destination are looked for without a frontend.
    pub(super) fn is_lodging(&self, destination: IpAddr) -> bool {
        self.lodgers.contains(&class_of(destination))
    }

    /// Puts the other half back if it is missing and this one is not proven.
    pub(super) fn repair(&mut self, key: &Key) {
        let half = self.halves[key].clone();
        let other = Self::other_key(key, &half);
        if half.is_proven || self.halves.contains_key(&other) {
            return;
        }
        let (end, to) = match half.end {
            End::Destination => (End::Source, key.destination),
            End::Source => (End::Destination, key.source),
        };
        let restored = Half {
            end,
            to,
            is_request: !half.is_request,
            fin: false,
            rst: false,
            is_replied: false,
            is_crowded: false,
            expected_ack: None,
            last_seen: self.now,
            ..half
        };
        self.halves.insert(other, restored);
        self.count(Counter::FlowsRepaired);
    }

    /// Whether a UDP client may prove one more flow in this minute; counts it.
    pub(super) fn udp_client_may_prove(&mut self, client: IpAddr) -> bool {
        let now = self.now;
        let (start, count) = self.udp_clients.get(&client).copied().unwrap_or((now, 0));
        let (start, count) = if self.passed(start, 60) {
            (now, 0)
        } else {
            (start, count)
        };
        let may = count < self.udp_flows_per_client;
        self.udp_clients
            .insert(client, (start, count + u32::from(may)));
        may
    }

    /// Moves both directions to FLOWS, or none.
    pub(super) fn prove(&mut self, key: &Key) {
        let half = self.halves[key].clone();
        let other = Self::other_key(key, &half);
        if self
            .halves
            .get(&other)
            .is_some_and(|present| Self::other_key(&other, present) != *key)
        {
            // Another flow has the reply tuple by now, and keeps it.
            return;
        }
        let is_v4 = key.source.is_ipv4();
        let proven = self
            .halves
            .iter()
            .filter(|(key, half)| key.source.is_ipv4() == is_v4 && half.is_proven);
        if proven.count() + 2 > self.proven_capacity {
            if !half.is_crowded {
                self.count(Counter::FlowsTableFull);
                self.halves.get_mut(key).expect("a known flow").is_crowded = true;
                self.lodgers.insert(class_of(key.destination.ip()));
            }
            return;
        }
        for key in [key, &other] {
            let half = self.halves.get_mut(key).expect("repaired");
            half.is_proven = true;
            half.expected_ack = None;
            half.is_crowded = false;
        }
        // The other half is written anew, with the time of writing.
        let now = self.now;
        self.halves.get_mut(&other).expect("repaired").last_seen = now;
        self.count(Counter::FlowsProven);
    }
}

fn class_of(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => address_class(Ipv4Address::from(address).as_ref()),
        IpAddr::V6(address) => address_class(Ipv6Address::from(address).as_ref()),
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
