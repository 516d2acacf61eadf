//! A socket buffer as a packet. The checksum helpers live here, and with them what the device has summed already.
use core::hint::black_box;

use aya_ebpf::{
    bindings::{
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT,
        bpf_fib_lookup as FibLookup, bpf_sock_tuple,
    },
    helpers::{
        bpf_csum_update, bpf_fib_lookup, bpf_l4_csum_replace, bpf_sk_lookup_udp, bpf_sk_release,
        bpf_skb_change_head, bpf_skb_pull_data, bpf_skb_vlan_pop, bpf_skc_lookup_tcp,
    },
    programs::TcContext,
};
use lb_common::{IpFamily, Ipv4Address, Ipv6Address, NODE_DEVICE_ADDRESS, Protocol, Tuple, V4, V6};
use lb_ebpf::bytes::{
    checksum::ChecksumDelta,
    crc32c,
    headers::EthernetHeader,
    packet::{EthernetAddress, Forwarding, Header, L4Checksum, NOWHERE, OnBridge, Packet},
    parse::Link,
};

use super::maps::SCRATCH;

/// How much is made directly readable when headers are not: more than any header chain that is walked over in practice.
const PULL_BYTES: u32 = 512;

pub struct SkbPacket {
    pub context: TcContext,
    /// The device that it leaves by, if it does not go on from the hook.
    pub redirect: u32,
    /// Whether that is the node's device.
    pub goes_to_node: bool,
}

impl SkbPacket {
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        Self {
            context,
            redirect: 0,
            goes_to_node: false,
        }
    }
    #[inline(always)]
    fn at<H: Header>(&self, offset: usize) -> Option<*mut H> {
        let start = self.context.data() + offset;
        if start + size_of::<H>() > self.context.data_end() {
            return None;
        }
        Some(start as *mut H)
    }
}

impl SkbPacket {
    /// Makes the Ethernet header, which is put before a packet that has none, one of a frame for an end of the node's
    /// device pair.
    #[inline(always)]
    pub fn make_frame(&mut self, link: Link) -> Option<()> {
        let skb = black_box(self.context.skb.skb);
        if link == Link::Ip {
            let length = size_of::<EthernetHeader>() as u32;
            // SAFETY: the helper checks the length; every view is dead, `&mut self` saw to it.
            if unsafe { bpf_skb_change_head(skb, length, 0) } != 0 {
                return None;
            }
            // SAFETY: the context is valid while the program runs.
            let protocol = unsafe { (*skb).protocol };
            let ethernet = self.header_mut::<EthernetHeader>(0)?;
            ethernet.source = [0; 6];
            ethernet.ether_type = (protocol as u16).to_ne_bytes();
        // SAFETY: as above.
        } else if unsafe { (*skb).vlan_present } != 0 {
            // The tag of the network that it came from.
            // SAFETY: as above.
            if unsafe { bpf_skb_vlan_pop(skb) } != 0 {
                return None;
            }
        }
        self.header_mut::<EthernetHeader>(0)?.destination = NODE_DEVICE_ADDRESS;
        Some(())
    }
}

impl Packet for SkbPacket {
    #[inline(always)]
    fn header<H: Header>(&self, offset: usize) -> Option<&H> {
        // SAFETY: in bounds; `Header` allows any bytes at alignment 1; no `&mut` can live beside `&self`.
        self.at(offset).map(|header| unsafe { &*header })
    }
    #[inline(always)]
    fn header_mut<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        // SAFETY: as above, and `&mut self` makes this the only view.
        self.at(offset).map(|header| unsafe { &mut *header })
    }
    #[inline(always)]
    fn pull(&mut self) -> bool {
        let length = self.context.len();
        let wanted = if length < PULL_BYTES {
            length
        } else {
            PULL_BYTES
        };
        if self.context.data_end() - self.context.data() >= wanted as usize {
            return false;
        }
        // SAFETY: the helper checks the length; every view is dead, `&mut self` saw to it.
        unsafe { bpf_skb_pull_data(self.context.skb.skb, wanted) == 0 }
    }
    #[inline(always)]
    fn adjust_l4_checksum(
        &mut self,
        at: L4Checksum,
        pseudo: ChecksumDelta,
        rest: ChecksumDelta,
    ) -> Option<()> {
        let skb = self.context.skb.skb;
        let mangled = if at.zero_is_none {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        let offset = at.offset as u32;
        let pseudo = pseudo.folded();
        // SAFETY: the helper checks the offset; every view is dead, `&mut self` saw to it. A size of zero in the
        // flags means that the fourth argument is a difference.
        let addresses = unsafe {
            bpf_l4_csum_replace(
                skb,
                offset,
                0,
                u64::from(pseudo),
                u64::from(BPF_F_PSEUDO_HDR) | mangled,
            )
        };
        if addresses != 0 {
            return None;
        }
        // SAFETY: as above.
        let ports =
            unsafe { bpf_l4_csum_replace(skb, offset, 0, u64::from(rest.folded()), mangled) };
        if ports != 0 {
            return None;
        }
        if at.unbalanced {
            // With CHECKSUM_COMPLETE the first call has taken the addresses' change off skb->csum, as if an IP header
            // checksum had taken it up (inet_proto_csum_replace_by_diff). IPv6 has none, so it is put back. Where the
            // device has not summed, the helper refuses, and there is nothing to put back.
            // SAFETY: the helper changes skb->csum only.
            let _not_complete = unsafe { bpf_csum_update(skb, pseudo) };
        }
        Some(())
    }
    #[inline(always)]
    fn adjust_sum(&mut self, change: ChecksumDelta) {
        // SAFETY: the helper changes skb->csum only, and refuses where the device has not summed.
        let _not_complete = unsafe { bpf_csum_update(self.context.skb.skb, change.folded()) };
    }
    #[inline(always)]
    fn advance_crc32c(&self, register: u32, bytes: u32) -> u32 {
        advance_crc32c(register, bytes)
    }
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context.skb.skb).ifindex }
    }
    #[inline(always)]
    fn redirect(&mut self, interface: u32) {
        self.redirect = interface;
    }
    #[inline(always)]
    fn redirect_to_node(&mut self, device: u32) {
        self.redirect = device;
        self.goes_to_node = true;
    }
    #[inline(always)]
    fn is_for_another_machine(&self) -> bool {
        // A pointer to the field, kept for several reads, would be no context for the verifier.
        let skb = black_box(self.context.skb.skb);
        // SAFETY: as above.
        unsafe { (*skb).pkt_type == PACKET_OTHERHOST }
    }
}

/// On the stack at a multiple of 8: the compiler writes two fields at once, and the verifier wants such stores aligned.
#[repr(align(8))]
struct SocketTuple(bpf_sock_tuple);

/// A frame for another machine (`linux/if_packet.h`).
const PACKET_OTHERHOST: u32 = 3;

/// `AF_INET` and `AF_INET6` on Linux.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

impl SkbPacket {
    /// Asks for a route; `fill` gives the family and the addresses, and the answer has the helper's number as well.
    #[inline(always)]
    fn route<'a>(
        &mut self,
        interface: u32,
        flags: u32,
        fill: impl FnOnce(&mut FibLookup),
    ) -> Option<(&'a FibLookup, i64)> {
        // Not on the stack, where the structure's fields at odd places could not be read.
        let memory = SCRATCH.get_ptr_mut(1)?.cast::<FibLookup>();
        // SAFETY: large enough and aligned; zero bytes are a value of integers and unions of integers.
        unsafe { memory.write_bytes(0, 1) };
        // SAFETY: the programs of a CPU run one after the other, no other function of this one uses the second value of
        // SCRATCH while the answer is read.
        let lookup = unsafe { &mut *memory };
        fill(lookup);
        lookup.ifindex = interface;
        let size = size_of::<FibLookup>() as i32;
        // SAFETY: the pointer and its size belong together; the helper reads and writes nothing else.
        let answer = unsafe { bpf_fib_lookup(self.context.skb.skb.cast(), lookup, size, flags) };
        Some((lookup, answer))
    }

    /// Where the bridge forwards a packet to.
    #[inline(always)]
    fn forwarded(&mut self, bridge: u32, fill: impl FnOnce(&mut FibLookup)) -> OnBridge {
        let Some((lookup, answer)) = self.route(bridge, 0, fill) else {
            return OnBridge::No;
        };
        if lookup.ifindex != bridge {
            return OnBridge::No;
        }
        if answer == i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
            OnBridge::At(EthernetAddress(lookup.dmac))
        } else if answer == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
            OnBridge::Unresolved
        } else {
            OnBridge::No
        }
    }
}

impl SkbPacket {
    /// Whether the device's network namespace has a socket for a packet with these addresses; `size` tells the family.
    #[inline(always)]
    fn has_socket(&mut self, protocol: u8, tuple: &mut bpf_sock_tuple, size: u32) -> bool {
        let context = self.context.skb.skb.cast();
        let current = u64::from(u32::MAX); // BPF_F_CURRENT_NETNS
        if protocol == Protocol::Tcp.number() {
            // SAFETY: the tuple is at least as long as `size`; what is found is given back at once.
            let socket = unsafe { bpf_skc_lookup_tcp(context, tuple, size, current, 0) };
            if socket.is_null() {
                return false;
            }
            // SAFETY: it was found above, and is not used any more.
            unsafe { bpf_sk_release(socket.cast()) };
            return true;
        }
        if protocol == Protocol::Udp.number() {
            // SAFETY: as above.
            let socket = unsafe { bpf_sk_lookup_udp(context, tuple, size, current, 0) };
            if socket.is_null() {
                return false;
            }
            // SAFETY: as above.
            unsafe { bpf_sk_release(socket.cast()) };
            return true;
        }
        false
    }
}

/// Whether the helper has found a next hop, with its Ethernet address or without.
#[inline(always)]
fn is_route(answer: i64) -> bool {
    answer == i64::from(BPF_FIB_LKUP_RET_SUCCESS) || answer == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH)
}

/// Without a length the helper refuses frames that the device's MTU, which counts no headers, is too small for.
#[inline(always)]
fn any_length(lookup: &mut FibLookup) {
    lookup.__bindgen_anon_1.tot_len = 1;
}

/// The device that the answer names, `None` if the packet is not forwarded because it is for this node.
#[inline(always)]
fn leads_to(lookup: &FibLookup, answer: i64) -> Option<u32> {
    if is_route(answer) {
        return Some(lookup.ifindex);
    }
    (answer != i64::from(BPF_FIB_LKUP_RET_NOT_FWDED)).then_some(NOWHERE)
}

#[inline(always)]
fn fill_v4(lookup: &mut FibLookup, source: Ipv4Address, destination: Ipv4Address) {
    lookup.family = AF_INET;
    lookup.__bindgen_anon_3.ipv4_src = source.0[0];
    lookup.__bindgen_anon_4.ipv4_dst = destination.0[0];
}

#[inline(always)]
fn fill_v6(lookup: &mut FibLookup, source: Ipv6Address, destination: Ipv6Address) {
    lookup.family = AF_INET6;
    lookup.__bindgen_anon_3.ipv6_src = source.0;
    lookup.__bindgen_anon_4.ipv6_dst = destination.0;
}

impl Forwarding<V4> for SkbPacket {
    #[inline(always)]
    fn on_bridge(
        &mut self,
        bridge: u32,
        source: <V4 as IpFamily>::Address,
        destination: <V4 as IpFamily>::Address,
    ) -> OnBridge {
        self.forwarded(bridge, |lookup| fill_v4(lookup, source, destination))
    }
    #[inline(always)]
    fn next_hop(&mut self, source: Ipv4Address, destination: Ipv4Address) -> Ipv4Address {
        let fill = |lookup: &mut FibLookup| fill_v4(lookup, source, destination);
        match self.route(self.interface(), BPF_FIB_LOOKUP_OUTPUT, fill) {
            // A gateway of the other family leaves the destination as it is.
            Some((lookup, answer)) if is_route(answer) && lookup.family == AF_INET => {
                // SAFETY: the helper has written an IPv4 address, as the family says.
                Ipv4Address([unsafe { lookup.__bindgen_anon_4.ipv4_dst }])
            }
            _ => destination,
        }
    }
    #[inline(always)]
    fn next_device(&mut self, source: Ipv4Address, destination: Ipv4Address) -> Option<u32> {
        let fill = |lookup: &mut FibLookup| {
            fill_v4(lookup, source, destination);
            any_length(lookup);
        };
        let (lookup, answer) = self.route(self.interface(), 0, fill)?;
        leads_to(lookup, answer)
    }
    #[inline(always)]
    fn is_for_socket(&mut self, tuple: &Tuple<V4>) -> bool {
        // SAFETY: zero bytes are a value of integers.
        let mut of_socket: SocketTuple = unsafe { core::mem::zeroed() };
        let at = &mut of_socket.0.__bindgen_anon_1;
        at.ipv4.saddr = tuple.source.0[0];
        at.ipv4.daddr = tuple.destination.0[0];
        at.ipv4.sport = tuple.source_port.word();
        at.ipv4.dport = tuple.destination_port.word();
        self.has_socket(tuple.protocol_number(), &mut of_socket.0, 12)
    }
}

impl Forwarding<V6> for SkbPacket {
    #[inline(always)]
    fn on_bridge(
        &mut self,
        bridge: u32,
        source: <V6 as IpFamily>::Address,
        destination: <V6 as IpFamily>::Address,
    ) -> OnBridge {
        self.forwarded(bridge, |lookup| fill_v6(lookup, source, destination))
    }
    #[inline(always)]
    fn next_hop(&mut self, source: Ipv6Address, destination: Ipv6Address) -> Ipv6Address {
        let fill = |lookup: &mut FibLookup| fill_v6(lookup, source, destination);
        match self.route(self.interface(), BPF_FIB_LOOKUP_OUTPUT, fill) {
            Some((lookup, answer)) if is_route(answer) => {
                // SAFETY: the helper has written an IPv6 address.
                Ipv6Address(unsafe { lookup.__bindgen_anon_4.ipv6_dst })
            }
            _ => destination,
        }
    }
    #[inline(always)]
    fn next_device(&mut self, source: Ipv6Address, destination: Ipv6Address) -> Option<u32> {
        let fill = |lookup: &mut FibLookup| {
            fill_v6(lookup, source, destination);
            any_length(lookup);
        };
        let (lookup, answer) = self.route(self.interface(), 0, fill)?;
        leads_to(lookup, answer)
    }
    #[inline(always)]
    fn is_for_socket(&mut self, tuple: &Tuple<V6>) -> bool {
        // SAFETY: zero bytes are a value of integers.
        let mut of_socket: SocketTuple = unsafe { core::mem::zeroed() };
        let at = &mut of_socket.0.__bindgen_anon_1;
        at.ipv6.saddr = tuple.source.0;
        at.ipv6.daddr = tuple.destination.0;
        at.ipv6.sport = tuple.source_port.word();
        at.ipv6.dport = tuple.destination_port.word();
        self.has_socket(tuple.protocol_number(), &mut of_socket.0, 36)
    }
}

/// [`crc32c::advance`] for the verifier once, not for each place that rewrites a packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn advance_crc32c(register: u32, bytes: u32) -> u32 {
    crc32c::advance(register, bytes)
}
