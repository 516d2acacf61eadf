//! How the datapath sees a packet. Bounds are checked here, once, for every caller.
#![expect(
    unsafe_code,
    reason = "`Header` is the one promise that header types make"
)]
use lb_common::{IpFamily, Tuple};

use crate::bytes::{checksum::ChecksumDelta, crc32c};

/// A wire layout that may be laid over any bytes.
///
/// # Safety
/// `repr(C)`, alignment 1, no padding, every bit pattern valid.
pub unsafe trait Header: Copy {}

/// Where a transport checksum lies and how it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4Checksum {
    /// Bytes from the start of the packet to the checksum field.
    pub offset: usize,
    /// Zero means "no checksum" and must stay; a computed zero becomes `0xffff` (RFC 768: UDP over IPv4 only;
    /// over IPv6 a computed zero becomes `0xffff` too, and zero may not be sent, RFC 8200 section 8.1).
    pub zero_is_none: bool,
    /// The pseudo-header's change is not balanced by an IP header checksum (IPv6): matters where the device
    /// has summed the whole packet (`CHECKSUM_COMPLETE`).
    pub unbalanced: bool,
}

/// A packet's bytes, wherever they are: socket buffer, XDP buffer or plain memory.
pub trait Packet {
    /// The header at `offset` bytes, or `None` where the directly readable part ends before it.
    fn header<H: Header>(&self, offset: usize) -> Option<&H>;

    /// The same for writing.
    fn header_mut<H: Header>(&mut self, offset: usize) -> Option<&mut H>;

    /// Makes more of the packet directly readable, once. True if that changed anything: parse again then.
    ///
    /// A `None` of [`Packet::header`] means either that the packet ends there or that the bytes are not linear; this
    /// call tells the two apart.
    fn pull(&mut self) -> bool;

    /// Folds a change into the transport checksum: `pseudo` is the part that the pseudo-header covers (addresses),
    /// `rest` what the segment itself holds (ports). `None`: not possible, and bytes may have changed.
    ///
    /// `&mut self` because on a socket buffer the helper behind it invalidates every view; the borrow checker then
    /// says so before the verifier does.
    fn adjust_l4_checksum(
        &mut self,
        at: L4Checksum,
        pseudo: ChecksumDelta,
        rest: ChecksumDelta,
    ) -> Option<()>;

    /// A change that no checksum in the packet makes good for: where the device has summed the whole packet
    /// (`CHECKSUM_COMPLETE`), that sum follows.
    fn adjust_sum(&mut self, change: ChecksumDelta);

    /// [`crc32c::advance`]. It asks nothing of the packet: it is here so that a program can make it a function of its own.
    #[inline(always)]
    fn advance_crc32c(&self, register: u32, bytes: u32) -> u32 {
        crc32c::advance(register, bytes)
    }

    /// Index of the interface at whose hook the packet is.
    fn interface(&self) -> u32;

    /// The packet leaves by this device, to the next hop of its addresses there.
    fn redirect(&mut self, interface: u32);

    /// The packet goes on to processes of the node: it leaves by this device, the inner end of the node's device pair.
    fn redirect_to_node(&mut self, device: u32);

    /// Whether the packet entered in a frame with the Ethernet address of another machine (`PACKET_OTHERHOST`).
    fn is_for_another_machine(&self) -> bool;
}

/// An Ethernet address, aligned like everything that may lie on a program's stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetAddress(pub [u8; 6]);

/// Where the stack would send a packet that came in by a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBridge {
    /// Elsewhere: it is routed.
    No,
    /// Out by the same bridge, to a neighbour whose Ethernet address is not known yet.
    Unresolved,
    /// Out by the same bridge, to this Ethernet address.
    At(EthernetAddress),
}

/// The index that no device has: what is redirected there is dropped.
pub const NOWHERE: u32 = 0;

/// Asks the stack how it would forward.
pub trait Forwarding<F: IpFamily> {
    /// Where a packet from `source` to `destination` goes that comes in by the bridge with index `bridge`.
    fn on_bridge(&mut self, bridge: u32, source: F::Address, destination: F::Address) -> OnBridge;
    /// The next hop of a packet that leaves by the device at whose hook it is: a gateway, or `destination` itself.
    fn next_hop(&mut self, source: F::Address, destination: F::Address) -> F::Address;
    /// The device that a packet between these addresses is routed to: `None` if it is for this node, or no route is known, and
    /// [`NOWHERE`] if it must not be sent.
    fn next_device(&mut self, source: F::Address, destination: F::Address) -> Option<u32>;
    /// Whether a socket of the node gets packets that enter with this tuple: one that is connected so, or bound to the
    /// destination. Of SCTP nothing is known.
    fn is_for_socket(&mut self, tuple: &Tuple<F>) -> bool;
}
