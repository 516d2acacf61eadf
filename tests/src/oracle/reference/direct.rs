//! Connections to a backend's own address.
use std::net::SocketAddr;

use lb_common::{BackendState, Counter, DropReason, PassReason, Translation, Verdict};

use super::{
    Backend, End, Half, Outcome, Passing, World, objects::begins_with_one_of, state::class_of,
};
use crate::packets::dissect::{UDP, flag};

impl World {
    /// Whether a packet without a flow opens a direct one: it is sent to a backend's address by a client whose connections
    /// are tracked, and does not end a connection.
    pub(super) fn is_direct(&self, passing: &Passing<'_>) -> bool {
        let dialled = (passing.key.destination, passing.key.protocol);
        let Some(is_for_everybody) = self.direct.get(&dialled) else {
            return false;
        };
        let is_end = passing.packet.flags & (flag::FIN | flag::RST) != 0;
        (*is_for_everybody || begins_with_one_of(passing.key.source.ip(), &self.pods))
            && !passing.is_part_of_sctp()
            && (passing.key.protocol == UDP || !is_end)
    }

    /// Opens it. Only a packet that opens a connection gets another source port; an established connection may have one.
    pub(super) fn open_direct(&mut self, passing: &Passing<'_>) -> Outcome {
        let address = passing.key.destination;
        let may_change = passing.key.protocol == UDP || passing.packet.opens();
        let keeps_own = self.may_have(passing, address, None);
        let port = if may_change || keeps_own {
            self.source_port(passing, address)
        } else {
            self.port_before(passing, address)
        };
        if !may_change && !keeps_own && port.is_none() {
            return Outcome::untouched(Verdict::Pass(PassReason::NotOurs), passing.bytes);
        }
        if port.is_some() {
            self.unlisted.insert(class_of(address.ip()));
        }
        let backend = Backend {
            address,
            state: BackendState::Active,
            generation: 0,
            service: 0,
        };
        self.remember_both(passing, 0, &backend, false, port);
        self.count(Counter::FlowsOpened);
        if port.is_none() {
            return passing.direct();
        }
        let half = self.find(&passing.key, End::Destination);
        let half = half.expect("it was just remembered");
        passing.translated(Translation::Request, &half, None)
    }

    /// The port that the connection had, if its reply half is there still: what the datapath took.
    fn port_before(&self, passing: &Passing<'_>, address: SocketAddr) -> Option<u16> {
        if passing.observed.verdict != Verdict::Translated(Translation::Request) {
            return None;
        }
        let port = passing.observed.source(passing.link)?.port();
        let reply = self
            .halves
            .get(&Self::answer_key(passing, address, Some(port)));
        let is_before = reply.is_some_and(|it| it.last_seen != self.now);
        assert!(
            is_before,
            "port {port} is new for a connection that goes on"
        );
        Some(port)
    }
}

impl Passing<'_> {
    /// A fragment of an SCTP packet of a known flow.
    pub(super) fn fragmented(&self, half: &Half) -> Outcome {
        if half.changes_nothing() {
            self.direct()
        } else {
            self.dropped(DropReason::Fragmented)
        }
    }
    /// The packet belongs to a direct flow that keeps its port.
    pub(super) fn direct(&self) -> Outcome {
        Outcome::untouched(Verdict::Pass(PassReason::Direct), self.bytes)
    }
}
