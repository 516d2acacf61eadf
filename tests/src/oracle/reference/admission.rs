//! Who may dial what, and what becomes of what nobody serves.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{DropReason, PassReason, Verdict};

use super::{Key, Passing, World, objects::begins_with_one_of};
use crate::packets::dissect::UDP;

/// The rules beside those of the services themselves.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Addresses of services, whose other ports are refused.
    pub refusing: BTreeSet<IpAddr>,
    /// Addresses whose other ports are others' affair.
    pub left: BTreeSet<IpAddr>,
    /// How the addresses begin that services get.
    pub for_services: Vec<Vec<u8>>,
    /// How the addresses of a service's clients must begin, if not all may come.
    pub ranges: BTreeMap<u32, Vec<Vec<u8>>>,
}

/// A UDP reply that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Whether one has come.
    pub is_replied: bool,
    /// The time of the last question or answer, written at most once a second.
    pub last_seen: u32,
}

impl World {
    /// The verdict for a packet to an address and port without a frontend; `begins`: it can begin a conversation.
    pub(super) fn unserved(&self, address: IpAddr, begins: bool) -> Verdict {
        let Admission {
            refusing,
            left,
            for_services,
            ..
        } = &self.admission;
        if refusing.contains(&address) {
            Verdict::Drop(DropReason::NoSuchPort)
        } else if begins && !left.contains(&address) && begins_with_one_of(address, for_services) {
            Verdict::Drop(DropReason::NoSuchService)
        } else {
            Verdict::Pass(PassReason::NotOurs)
        }
    }

    /// Whether a client may open a flow to a service.
    pub(super) fn admits(&self, service: u32, client: IpAddr) -> bool {
        let ranges = self.admission.ranges.get(&service);
        ranges.is_none_or(|ranges| begins_with_one_of(client, ranges))
    }

    /// The same for a packet with ports. A datagram from an address in a ServiceCIDR makes its reply expected.
    pub(super) fn unserved_port(&mut self, passing: &Passing<'_>) -> Verdict {
        let Key {
            source,
            destination,
            protocol,
            ..
        } = passing.key;
        let is_udp = protocol == UDP;
        let is_answer = if is_udp {
            self.awaited.contains_key(&passing.key)
                || self.halves.contains_key(&passing.key.crossed())
        } else {
            !passing.packet.opens()
        };
        let verdict = self.unserved(destination.ip(), !is_answer);
        if !is_udp {
            return verdict;
        }
        let no_service = Verdict::Drop(DropReason::NoSuchService);
        let [from, to] = [source, destination].map(|it| self.unserved(it.ip(), true));
        if to == no_service && self.awaited.contains_key(&passing.key) {
            self.await_again(passing.key, true);
        } else if to == Verdict::Pass(PassReason::NotOurs) && from == no_service {
            self.await_again(passing.key.reversed(), false);
        }
        verdict
    }

    /// Another question, or another answer, of a conversation.
    fn await_again(&mut self, answer: Key, is_answer: bool) {
        let earlier = self.awaited.get(&answer);
        let asked = earlier
            .map(|it| it.last_seen)
            .filter(|it| !self.passed(*it, 1));
        let awaited = Awaited {
            last_seen: asked.unwrap_or(self.now),
            is_replied: is_answer || earlier.is_some_and(|it| it.is_replied),
        };
        self.awaited.insert(answer, awaited);
    }
}
