//! What the reference remembers and forgets of flows.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::Counter;

use super::{
    Backend, End, Half, Key, Masqueraded, Passing, World, objects::begins_with_one_of,
    state::class_of,
};

impl World {
    pub(super) fn forget(&mut self, key: &Key) {
        let Some(half) = self.forget_both(key) else {
            return;
        };
        if half.masquerade {
            // As the request goes on, or, seen from the reply, as it comes back.
            let towards_backend = match half.end {
                End::Destination => Self::translated(key, &half),
                End::Source => key.reversed(),
            };
            self.forget_both(&towards_backend);
        }
    }

    /// Both halves, as long as the other one is this flow's: after an eviction another flow may have its key.
    fn forget_both(&mut self, key: &Key) -> Option<Half> {
        let half = self.halves.remove(key)?;
        let other_key = Self::other_key(key, &half);
        let other = self.halves.get(&other_key);
        if other.is_some_and(|other| Self::other_key(&other_key, other) == *key) {
            self.halves.remove(&other_key);
        }
        Some(half)
    }

    pub(super) fn answer_key(passing: &Passing<'_>, backend: SocketAddr, port: Option<u16>) -> Key {
        let client = passing.key.source;
        Key {
            source: backend,
            destination: SocketAddr::new(client.ip(), port.unwrap_or(client.port())),
            protocol: passing.key.protocol,
            end: End::Source,
        }
    }

    /// Whether a new flow to this backend may have this source port, or its own: no living flow of another frontend has the
    /// reply tuple then.
    pub(super) fn may_have(
        &self,
        passing: &Passing<'_>,
        backend: SocketAddr,
        port: Option<u16>,
    ) -> bool {
        let answer = Self::answer_key(passing, backend, port);
        let Some(owner) = self.halves.get(&answer) else {
            return true;
        };
        let client_port = port.map(|_| passing.key.source.port());
        let is_ours = owner.end == End::Source
            && owner.to == passing.key.destination
            && owner.other_port == client_port;
        let is_silent = !owner.is_proven && self.passed(owner.last_seen, 60);
        // A port that is not the client's own is not taken over: there are others.
        is_ours || port.is_none() && (is_silent || self.is_over(&answer))
    }

    /// Remembers a new flow, perhaps with another source port: both directions, unproven.
    pub(super) fn remember(&mut self, passing: &Passing<'_>, id: u32, port: Option<u16>) {
        let backend = self.backends[&id].clone();
        let client = passing.key.source.ip();
        let is_stranger = match self.services[&backend.service].masqueraded {
            Masqueraded::Nobody => false,
            Masqueraded::Strangers => !begins_with_one_of(client, &self.pods),
            Masqueraded::Everybody => true,
        };
        let masquerade = is_stranger || backend.address.ip() == client;
        self.remember_both(passing, id, &backend, masquerade, port);
    }

    /// The same for any backend.
    pub(super) fn remember_both(
        &mut self,
        passing: &Passing<'_>,
        id: u32,
        backend: &Backend,
        masquerade: bool,
        port: Option<u16>,
    ) {
        let request = Half {
            end: End::Destination,
            to: backend.address,
            other_port: port,
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
            other_port: port.map(|_| passing.key.source.port()),
            is_request: false,
            ..request.clone()
        };
        let answer = Self::answer_key(passing, backend.address, port);
        if port.is_none() {
            // What is over, or our own left over.
            self.forget(&answer);
        }
        self.halves.entry(answer).or_insert(reply);
        self.halves.insert(passing.key, request);
        self.want_masquerade(&passing.key);
    }

    /// Notes that what a hairpin's request becomes must be masqueraded on egress, if it is not noted yet.
    pub(super) fn want_masquerade(&mut self, key: &Key) {
        let request = self.halves[key].clone();
        let outgoing = Self::translated(key, &request);
        if !request.masquerade || request.is_proven || self.halves.contains_key(&outgoing) {
            return;
        }
        let half = Half {
            end: End::Source,
            to: SocketAddr::new(unspecified(request.to), 0),
            other_port: None,
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
        self.unlisted.insert(class_of(back.destination.ip()));
        self.halves.insert(back, returning);
        self.halves.insert(*outgoing, outgoing_half);
    }

    /// Puts the other half back if it is missing and this one is not proven.
    pub(super) fn repair(&mut self, key: &Key) {
        let half = self.halves[key].clone();
        let other = Self::other_key(key, &half);
        if half.is_proven || self.halves.contains_key(&other) {
            return;
        }
        let (end, to, own) = match half.end {
            End::Destination => (End::Source, key.destination, key.source),
            End::Source => (End::Destination, key.source, key.destination),
        };
        let restored = Half {
            end,
            to,
            other_port: half.other_port.map(|_| own.port()),
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
        let client = match client {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            IpAddr::V4(_) => client,
        };
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
                self.unlisted.insert(class_of(key.destination.ip()));
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

fn unspecified(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Whether a source port may become this one: outside the node ports and the ports that programs get by themselves.
pub(super) fn is_masquerade_port(port: u16) -> bool {
    (1024..30_000).contains(&port) || port >= 61_000
}
