//! The assignment of masquerade ports.
use std::net::{IpAddr, SocketAddr};

use lb_common::{DropReason, PassReason, Translation, Verdict};

use super::{End, Half, Key, Outcome, Passing, World, memory::is_masquerade_port};
use crate::packets::dissect::UDP;

impl World {
    /// Gives a request its masquerade: the egress device's address, and a port.
    pub(super) fn masquerade(
        &mut self,
        passing: &Passing<'_>,
        half: &Half,
    ) -> Result<SocketAddr, DropReason> {
        let device = self
            .devices
            .get(&passing.interface)
            .copied()
            .unwrap_or_default();
        let address: IpAddr = match passing.key.source {
            SocketAddr::V4(_) => device.masquerade_v4.into(),
            SocketAddr::V6(_) => device.masquerade_v6.into(),
        };
        if address.is_unspecified() {
            return Err(DropReason::NoMasqueradeAddress);
        }
        self.masquerade_by(passing, half, address)
    }

    /// The client's own port if it is free and none that the node's own connections may come from by themselves; else
    /// whichever the datapath took: no living flow has it.
    fn masquerade_by(
        &mut self,
        passing: &Passing<'_>,
        half: &Half,
        address: IpAddr,
    ) -> Result<SocketAddr, DropReason> {
        let client = passing.key.source;
        let answer = |port| Key {
            source: passing.key.destination,
            destination: SocketAddr::new(address, port),
            protocol: passing.key.protocol,
            end: End::Destination,
        };
        let port = if is_masquerade_port(client.port()) && self.is_free(&answer(client.port())) {
            client.port()
        } else if passing.observed.verdict == Verdict::Drop(DropReason::NoMasqueradePort) {
            return Err(DropReason::NoMasqueradePort);
        } else {
            let source = passing.observed.source(passing.link);
            let port = source.map_or(0, |source| source.port());
            assert!(is_masquerade_port(port), "{port} is none of ours");
            let answer = answer(port);
            let is_over = self.is_masquerade(&answer) && self.is_over(&answer);
            let may_be_taken = self.is_free(&answer) || is_over;
            assert!(may_be_taken, "masquerade port {port} is taken");
            self.forget(&answer);
            port
        };
        let to = SocketAddr::new(address, port);
        self.remember_masquerade(&passing.key, answer(port), to, half);
        Ok(to)
    }

    /// Whether replies to a masquerade have this tuple.
    fn is_masquerade(&self, key: &Key) -> bool {
        let half = self.halves.get(key);
        half.is_some_and(|half| half.masquerade && !half.is_request)
    }

    /// A packet that leaves and belongs to no flow. The first one of a connection may come from a masquerade's address and
    /// port: a masquerade that is over is forgotten, beside a living one the newcomer gets another port.
    pub(super) fn of_the_node(&mut self, passing: &Passing<'_>) -> Outcome {
        let passed = Outcome::untouched(Verdict::Pass(PassReason::NotOurs), passing.bytes);
        let is_first =
            passing.key.protocol == UDP || passing.packet.opens() && !passing.is_part_of_sctp();
        let back = passing.key.reversed().crossed();
        if !is_first || !self.is_lodging(passing.key.source.ip()) || !self.is_masquerade(&back) {
            return passed;
        }
        if self.is_over(&back) {
            self.forget(&back);
            return passed;
        }
        let half = Half {
            end: End::Source,
            other_port: None,
            backend: 0,
            generation: 0,
            service: 0,
            is_request: true,
            is_proven: false,
            fin: false,
            rst: false,
            is_replied: false,
            masquerade: true,
            expected_ack: None,
            is_crowded: false,
            ..self.halves[&back].clone()
        };
        match self.masquerade_by(passing, &half, passing.key.source.ip()) {
            Ok(to) => {
                let half = Half { to, ..half };
                passing.translated(Translation::MasqueradedRequest, &half, None)
            }
            Err(reason) => passing.dropped(reason),
        }
    }
}
