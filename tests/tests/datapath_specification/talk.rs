//! Services with three pods, and conversations with them.
use std::net::SocketAddr;

use lb_common::{BackendState, Verdict};
use lb_ebpf::{bytes::parse::Link, context::environment::FlowTable};
use tests::{
    oracle::host_datapath::HostDatapath,
    packets::dissect::{
        TCP, UDP, dissect,
        flag::{ACK, SYN},
    },
    packets::packet_builder::eth,
};

use crate::fixture::{REPLY, REQUEST};

/// A service of TCP and one of UDP, at the same address, with the same pods; and a second one of TCP.
pub(crate) const WEB: u32 = 1;
pub(crate) const DNS: u32 = 2;
pub(crate) const OTHER_WEB: u32 = 3;

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
pub(crate) fn client(port: u16) -> SocketAddr {
    SocketAddr::new(at("10.7.0.9:0").ip(), port)
}
pub(crate) fn frontend() -> SocketAddr {
    at("10.96.0.1:80")
}
pub(crate) fn other_frontend() -> SocketAddr {
    at("10.96.0.3:80")
}
pub(crate) fn pod(number: u32) -> SocketAddr {
    at(&format!("10.244.0.{number}:8080"))
}

/// Backend ids are the service's number times ten and the pod's.
pub(crate) fn node() -> HostDatapath {
    let mut node = HostDatapath::default();
    for (service, protocol, at) in [
        (WEB, TCP, frontend()),
        (DNS, UDP, frontend()),
        (OTHER_WEB, TCP, other_frontend()),
    ] {
        node.frontend(service, protocol, at);
        for number in 1..=3 {
            node.backend(
                service * 10 + number,
                service,
                pod(number),
                BackendState::Active,
            );
        }
    }
    node.candidates(WEB, &[11, 12, 13]);
    node.candidates(DNS, &[21, 22, 23]);
    node.candidates(OTHER_WEB, &[31]);
    node
}

/// A conversation partner that knows how TCP goes on.
pub(crate) struct Talk<'a> {
    pub(crate) node: &'a mut HostDatapath,
    pub(crate) protocol: u8,
    pub(crate) client: SocketAddr,
    pub(crate) frontend: SocketAddr,
}

impl Talk<'_> {
    pub(crate) fn ask_with(
        &mut self,
        flags: u8,
        acknowledgement: u32,
    ) -> (Verdict, Option<SocketAddr>) {
        let packet = eth()
            .between(self.protocol, self.client, self.frontend)
            .flags(flags);
        let bytes = packet.acknowledge(acknowledgement).build();
        let (verdict, bytes) = self.node.enter(&bytes);
        let destination = dissect(&bytes, Link::Ethernet)
            .expect("a packet")
            .destination;
        (verdict, (verdict == REQUEST).then_some(destination))
    }
    /// A packet of the client's; where it goes.
    pub(crate) fn ask(&mut self, flags: u8) -> Option<SocketAddr> {
        self.ask_with(flags, 0).1
    }
    /// A packet of the pod's.
    pub(crate) fn answer(&mut self, pod: SocketAddr, flags: u8) -> Verdict {
        let packet = eth().between(self.protocol, pod, self.client).flags(flags);
        self.node.leave(&packet.sequence(900).build()).0
    }
    pub(crate) fn table(&self) -> Option<FlowTable> {
        let found = self
            .node
            .remembered(self.protocol, self.client, self.frontend);
        found.map(|(table, _)| table)
    }
}

pub(crate) fn talk(node: &mut HostDatapath, protocol: u8, port: u16) -> Talk<'_> {
    Talk {
        node,
        protocol,
        client: client(port),
        frontend: frontend(),
    }
}

/// A TCP flow that both ends have agreed on; its pod.
pub(crate) fn established(node: &mut HostDatapath, port: u16) -> SocketAddr {
    let mut talk = talk(node, TCP, port);
    let pod = talk.ask(SYN).expect("a backend");
    assert_eq!(talk.answer(pod, SYN | ACK), REPLY);
    assert_eq!(talk.ask_with(ACK, 901), (REQUEST, Some(pod)));
    assert_eq!(talk.table(), Some(FlowTable::Proven));
    pod
}
