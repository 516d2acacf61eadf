//! The naive balancer: what becomes of a packet, written down once more, with standard types, slowly, and from the
//! specification alone. It is the oracle of `datapath_matches_reference`.
//!
//! Where the datapath may choose (a random backend, a masquerade port), the reference is shown what it chose and says
//! whether it was allowed to; everything else it predicts to the byte.
#![expect(
    clippy::expect_used,
    reason = "what cannot happen here is a mistake in the test, and fails it"
)]
mod admission;
mod affinity;
mod choice;
mod direct;
mod key;
mod masquerade;
mod memory;
mod objects;
mod rewriting;
mod state;
mod without_ports;

use std::net::SocketAddr;

use lb_common::{BackendState, Counter, DropReason, PassReason, Translation, Verdict};
use lb_ebpf::bytes::parse::Link;

pub use self::{
    admission::{Admission, Awaited},
    key::Key,
    objects::{Backend, Device, Masqueraded, Service, Stay},
    rewriting::{Change, End, Outcome},
    state::{Half, World},
    without_ports::FirstPiece,
};
use crate::packets::dissect::{Dissected, SCTP, TCP, UDP, dissect, flag};

/// What the datapath did, for the places where it may choose.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its verdict.
    pub verdict: Verdict,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
}

impl Observed {
    fn destination(&self, link: Link) -> Option<SocketAddr> {
        Some(dissect(&self.bytes, link).ok()?.destination)
    }
    fn source(&self, link: Link) -> Option<SocketAddr> {
        Some(dissect(&self.bytes, link).ok()?.source)
    }
}

/// A packet on its way through the reference.
struct Passing<'a> {
    bytes: &'a [u8],
    link: Link,
    interface: u32,
    packet: Dissected,
    key: Key,
    observed: &'a Observed,
}

impl World {
    /// What must become of a packet that enters by `interface`.
    pub fn ingress(
        &mut self,
        bytes: &[u8],
        link: Link,
        interface: u32,
        observed: &Observed,
    ) -> Outcome {
        match Passing::new(bytes, link, interface, observed, End::Destination) {
            Ok(passing) => {
                let outcome = self.enter(&passing);
                self.note_piece(&passing, &outcome);
                outcome
            }
            Err(reason) => self.without_ports(End::Destination, reason, (bytes, link), observed),
        }
    }

    /// What must become of a packet that leaves by `interface`.
    pub fn egress(
        &mut self,
        bytes: &[u8],
        link: Link,
        interface: u32,
        observed: &Observed,
    ) -> Outcome {
        match Passing::new(bytes, link, interface, observed, End::Source) {
            Ok(passing) => {
                let outcome = self.leave(&passing);
                self.note_piece(&passing, &outcome);
                outcome
            }
            Err(reason) => self.without_ports(End::Source, reason, (bytes, link), observed),
        }
    }

    fn enter(&mut self, passing: &Passing<'_>) -> Outcome {
        if let Some(half) = self.known(passing) {
            if passing.is_part_of_sctp() {
                return passing.fragmented(&half);
            }
            if !half.is_request {
                self.pass_by(passing);
                self.repair(&passing.key);
                if !half.is_proven && half.service == 0 {
                    self.prove(&passing.key);
                }
                return passing.translated(Translation::MasqueradedReply, &half, None);
            }
            if !self.starts_over(passing, &half) {
                let is_due = self.passed(half.last_seen, 1);
                if is_due && passing.key.protocol != UDP && self.is_gone(&half) {
                    self.halves.get_mut(&passing.key).expect("a known flow").rst = true;
                    return passing.dropped(DropReason::BackendGone);
                }
                self.pass_by(passing);
                self.want_masquerade(&passing.key);
                self.repair(&passing.key);
                self.prove_client(passing, is_due);
                if half.changes_nothing() {
                    return passing.direct();
                }
                let ethernet = self.bridged_to(passing, &half);
                return passing.translated(Translation::Request, &half, ethernet);
            }
            if passing.key.protocol == UDP {
                self.count(Counter::FlowsRebalanced);
            }
            self.forget(&passing.key);
        }
        self.open(passing)
    }

    /// The flow of a packet that enters. One that has not proven itself ends with its frontend, unless flows to such
    /// destinations are found without one.
    fn known(&self, passing: &Passing<'_>) -> Option<Half> {
        let dialled = (passing.key.destination, passing.key.protocol);
        let is_looked_for = self.is_lodging(passing.key.destination.ip())
            || self.frontends.contains_key(&dialled)
            || self.direct.contains_key(&dialled);
        self.find(&passing.key, End::Destination)
            .filter(|half| half.is_proven || is_looked_for)
    }

    /// TCP: a pure SYN when the flow is over or its pod is gone, or when it never came about, or its client has reset it,
    /// and its backend has left. UDP: whenever the backend does not serve any more, or the frontend is not the service's.
    fn starts_over(&self, passing: &Passing<'_>, half: &Half) -> bool {
        if passing.key.protocol == UDP {
            let dialled = (passing.key.destination, passing.key.protocol);
            let has_frontend =
                half.service == 0 || self.frontends.get(&dialled) == Some(&half.service);
            return !has_frontend || !self.backend_is(half, BackendState::serves);
        }
        let is_member = self.backend_is(half, |state| state == BackendState::Active);
        let has_left_it = (!half.is_proven || half.rst) && !is_member;
        let is_over = self.is_over(&passing.key) || self.is_gone(half);
        passing.packet.opens() && (is_over || has_left_it)
    }

    fn open(&mut self, passing: &Passing<'_>) -> Outcome {
        let frontend = passing.key.destination;
        let Some(service_id) = self.frontends.get(&(frontend, passing.key.protocol)) else {
            if self.is_direct(passing) {
                return self.open_direct(passing);
            }
            return Outcome::untouched(self.unserved_port(passing), passing.bytes);
        };
        let service_id = *service_id;
        if passing.is_part_of_sctp() {
            return passing.dropped(DropReason::Fragmented);
        }
        if passing.key.protocol != UDP && !passing.packet.opens() {
            return passing.dropped(DropReason::NoFlow);
        }
        if !self.admits(service_id, passing.key.source.ip()) {
            return passing.dropped(DropReason::SourceNotAllowed);
        }
        let service = self.services[&service_id].clone();
        if service.candidates.is_empty() {
            return passing.dropped(DropReason::NoBackend);
        }
        let kept = self.kept(service_id, passing.key.source.ip());
        let id = kept.unwrap_or_else(|| self.chosen(passing, &service));
        let port = self.source_port(passing, self.backends[&id].address);
        self.remember(passing, id, port);
        self.stay(service_id, passing.key.source.ip(), id);
        self.count(Counter::FlowsOpened);
        let half = self
            .find(&passing.key, End::Destination)
            .expect("it was just remembered");
        let ethernet = self.bridged_to(passing, &half);
        passing.translated(Translation::Request, &half, ethernet)
    }

    fn leave(&mut self, passing: &Passing<'_>) -> Outcome {
        let Some(half) = self.find(&passing.key, End::Source) else {
            return self.of_the_node(passing);
        };
        if passing.is_part_of_sctp() {
            return passing.fragmented(&half);
        }
        if !half.is_request {
            self.pass_by(passing);
            self.repair(&passing.key);
            if !half.is_proven {
                self.challenge(passing);
            }
            if half.changes_nothing() {
                return passing.direct();
            }
            return passing.translated(Translation::Reply, &half, None);
        }
        self.pass_by(passing);
        let half = self.halves[&passing.key].clone();
        if half.to.port() == 0 {
            return match self.masquerade(passing, &half) {
                Ok(to) => {
                    let half = Half { to, ..half };
                    passing.translated(Translation::MasqueradedRequest, &half, None)
                }
                Err(reason) => passing.dropped(reason),
            };
        }
        self.repair(&passing.key);
        // It is proven with the flow it belongs to.
        let reply = self.halves.get(&passing.key.reversed());
        if !half.is_proven && reply.is_some_and(|reply| reply.is_proven) {
            self.prove(&passing.key);
        }
        passing.translated(Translation::MasqueradedRequest, &half, None)
    }

    /// The Ethernet address that a bridged request goes to.
    fn bridged_to(&self, passing: &Passing<'_>, half: &Half) -> Option<[u8; 6]> {
        let bridge = self.devices.get(&passing.interface)?.bridge;
        // A masqueraded request comes back to the node: it is routed, as its answer will be.
        if bridge == 0 || half.masquerade || half.is_direct() || passing.link == Link::Ip {
            return None;
        }
        self.neighbours.get(&(bridge, half.to.ip())).copied()
    }

    /// A reply says which acknowledgement will prove the client, and that the backend answers.
    fn challenge(&mut self, passing: &Passing<'_>) {
        let packet = &passing.packet;
        let is_syn_ack = packet.protocol != UDP
            && packet.flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK;
        let Some(request) = self.other_half_mut(&passing.key) else {
            return;
        };
        // Only UDP is proven by an answer; whether a TCP entry notes it is the datapath's own affair.
        request.is_replied = packet.protocol == UDP;
        let number = packet.sequence.wrapping_add(u32::from(is_syn_ack));
        let is_over = packet.flags & flag::RST != 0;
        // The window of a SYN is not scaled: an unproven client cannot be further behind than its bytes.
        let is_due = request
            .expected_ack
            .is_none_or(|asked| number.wrapping_sub(asked) > 0xffff);
        let asks = match packet.protocol {
            UDP => false,
            TCP => is_syn_ack || is_due && !is_over,
            _ => is_syn_ack,
        };
        if asks {
            request.expected_ack = Some(number);
        }
    }

    /// A request may be the proof that the client received what the backend sent. One that has proven itself, but
    /// found no room, is tried again once a second.
    fn prove_client(&mut self, passing: &Passing<'_>, is_due: bool) {
        let half = self
            .find(&passing.key, End::Destination)
            .expect("a known flow");
        if half.is_proven {
            return;
        }
        let packet = &passing.packet;
        let is_proof = if half.is_crowded {
            is_due
        } else if packet.protocol != UDP {
            let behind = half
                .expected_ack
                .map(|asked| packet.acknowledgement.wrapping_sub(asked));
            let most = if packet.protocol == TCP { 0xffff } else { 0 };
            packet.flags & flag::ACK != 0 && behind.is_some_and(|behind| behind <= most)
        } else {
            half.is_replied && self.udp_client_may_prove(passing.key.source.ip())
        };
        if is_proof {
            self.prove(&passing.key);
        }
    }
}

impl<'a> Passing<'a> {
    fn new(
        bytes: &'a [u8],
        link: Link,
        interface: u32,
        observed: &'a Observed,
        end: End,
    ) -> Result<Self, PassReason> {
        let packet = dissect(bytes, link)?;
        let key = Key {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            end,
        };
        Ok(Self {
            bytes,
            link,
            interface,
            packet,
            key,
            observed,
        })
    }

    fn is_part_of_sctp(&self) -> bool {
        self.packet.protocol == SCTP && self.packet.is_fragment
    }
    fn dropped(&self, reason: DropReason) -> Outcome {
        Outcome::untouched(Verdict::Drop(reason), self.bytes)
    }
    fn translated(
        &self,
        translation: Translation,
        half: &Half,
        ethernet: Option<[u8; 6]>,
    ) -> Outcome {
        let (to, other_port) = (half.to, half.other_port);
        let end = without_ports::end_of(translation);
        Outcome {
            verdict: Verdict::Translated(translation),
            bytes: rewriting::rewritten(
                self.bytes,
                &self.packet,
                &Change {
                    end,
                    to,
                    other_port,
                    ethernet,
                },
                &self.observed.bytes,
            ),
        }
    }
}
