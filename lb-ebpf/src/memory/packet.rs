//! A packet in plain memory, with a part that is not linear and a neighbour table if a test wants them.
#![expect(
    unsafe_code,
    reason = "laying a `Header` over bytes, as the trait's promise allows"
)]
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::bytes::{
    checksum::{ChecksumDelta, adjust_in_place},
    packet::{EthernetAddress, Forwarding, Header, L4Checksum, OnBridge, Packet},
};
use lb_common::{IpFamily, Tuple};

/// A packet as a vector of bytes.
#[derive(Clone, Debug)]
pub struct MemoryPacket {
    /// The whole packet.
    pub bytes: Vec<u8>,
    /// How many of the bytes are directly readable; [`Packet::pull`] makes it all of them.
    pub linear: usize,
    /// The interface at whose hook the packet is.
    pub interface: u32,
    /// Who is behind which bridge: (bridge, address) to Ethernet address. Everybody else is routed.
    pub neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// It entered in a frame for another machine.
    pub is_for_another_machine: bool,
    /// The devices that packets from these addresses are routed to.
    pub routes_from: BTreeMap<IpAddr, u32>,
    /// The device that it leaves by, in place of [`Self::interface`].
    pub redirected: Option<u32>,
    /// The device that it leaves by to processes of the node.
    pub redirected_to_node: Option<u32>,
    /// The addresses and ports that sockets of the node are bound to.
    pub sockets: BTreeSet<SocketAddr>,
    /// How often more bytes were made readable.
    pub pulls: u32,
    /// Checksum changes fail, as the kernel's helper may.
    pub refuses_checksums: bool,
}

impl MemoryPacket {
    /// A linear packet on interface 1, with no neighbours.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            linear: bytes.len(),
            bytes,
            interface: 1,
            neighbours: BTreeMap::new(),
            is_for_another_machine: false,
            routes_from: BTreeMap::new(),
            redirected: None,
            redirected_to_node: None,
            sockets: BTreeSet::new(),
            pulls: 0,
            refuses_checksums: false,
        }
    }
    /// The same with only the first bytes directly readable.
    #[must_use]
    pub fn with_linear(mut self, linear: usize) -> Self {
        self.linear = linear.min(self.bytes.len());
        self
    }
    /// The same at another interface.
    #[must_use]
    pub fn at_interface(mut self, interface: u32) -> Self {
        self.interface = interface;
        self
    }
    fn reachable(&self, offset: usize, size: usize) -> Option<core::ops::Range<usize>> {
        let end = offset.checked_add(size)?;
        (end <= self.linear).then_some(offset..end)
    }
}

impl Packet for MemoryPacket {
    fn header<H: Header>(&self, offset: usize) -> Option<&H> {
        let range = self.reachable(offset, size_of::<H>())?;
        let bytes = self.bytes.get(range)?;
        // SAFETY: as many bytes as H has, alive as long as `self`; a `Header` has alignment 1 and takes any bits.
        Some(unsafe { &*bytes.as_ptr().cast() })
    }
    fn header_mut<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        let range = self.reachable(offset, size_of::<H>())?;
        let bytes = self.bytes.get_mut(range)?;
        // SAFETY: as above, and unique because `self` is borrowed mutably.
        Some(unsafe { &mut *bytes.as_mut_ptr().cast() })
    }
    fn pull(&mut self) -> bool {
        if self.linear == self.bytes.len() {
            return false;
        }
        self.linear = self.bytes.len();
        self.pulls += 1;
        true
    }
    fn adjust_l4_checksum(
        &mut self,
        at: L4Checksum,
        pseudo: ChecksumDelta,
        rest: ChecksumDelta,
    ) -> Option<()> {
        if self.refuses_checksums {
            return None;
        }
        // Like the kernel's helper, which makes the bytes linear itself.
        let field = self.bytes.get_mut(at.offset..at.offset + 2)?;
        adjust_in_place(field.try_into().ok()?, at.zero_is_none, pseudo.plus(rest));
        Some(())
    }
    fn adjust_sum(&mut self, _change: ChecksumDelta) {}
    fn redirect(&mut self, interface: u32) {
        self.redirected = Some(interface);
    }
    fn redirect_to_node(&mut self, device: u32) {
        self.redirected_to_node = Some(device);
    }
    fn is_for_another_machine(&self) -> bool {
        self.is_for_another_machine
    }
    fn interface(&self) -> u32 {
        self.interface
    }
}

impl<F: IpFamily> Forwarding<F> for MemoryPacket {
    fn on_bridge(&mut self, bridge: u32, _source: F::Address, destination: F::Address) -> OnBridge {
        match self.neighbours.get(&(bridge, destination.into())) {
            Some(address) => OnBridge::At(EthernetAddress(*address)),
            None => OnBridge::No,
        }
    }
    fn next_hop(&mut self, _source: F::Address, destination: F::Address) -> F::Address {
        destination
    }
    fn next_device(&mut self, source: F::Address, _destination: F::Address) -> Option<u32> {
        self.routes_from.get(&source.into()).copied()
    }
    fn is_for_socket(&mut self, tuple: &Tuple<F>) -> bool {
        let port = tuple.destination_port.number();
        self.sockets
            .contains(&SocketAddr::new(tuple.destination.into(), port))
    }
}

#[cfg(test)]
mod tests {
    use crate::bytes::headers::Ports;

    use super::*;

    fn ports(packet: &MemoryPacket, offset: usize) -> Option<[u8; 4]> {
        let ports = packet.header::<Ports>(offset)?;
        let [a, b] = ports.source;
        let [c, d] = ports.destination;
        Some([a, b, c, d])
    }

    #[test]
    fn a_header_that_reaches_over_the_end_is_not_there() {
        let packet = MemoryPacket::new(vec![1, 2, 3, 4, 5]);
        assert_eq!(ports(&packet, 1), Some([2, 3, 4, 5]));
        assert_eq!(ports(&packet, 2), None);
        assert_eq!(ports(&packet, usize::MAX), None);
    }

    #[test]
    fn pulling_makes_all_bytes_readable_once() {
        let mut packet = MemoryPacket::new(vec![1, 2, 3, 4]).with_linear(1);
        assert_eq!(ports(&packet, 0), None);
        assert!(packet.pull() && !packet.pull());
        assert_eq!(ports(&packet, 0), Some([1, 2, 3, 4]));
    }
}
