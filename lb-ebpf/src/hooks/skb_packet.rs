//! A socket buffer as a packet. The checksum helpers live here, and with them what the device has summed already.
use aya_ebpf::{
    bindings::{
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
    },
    helpers::{bpf_csum_update, bpf_fib_lookup, bpf_l4_csum_replace, bpf_skb_pull_data},
    programs::TcContext,
};
use lb_common::{IpFamily, V4, V6};
use lb_ebpf::bytes::{
    checksum::ChecksumDelta,
    crc32c,
    packet::{EthernetAddress, Forwarding, Header, L4Checksum, OnBridge, Packet},
};

use super::maps::SCRATCH;

/// How much is made directly readable when headers are not: more than any header chain that is walked over in practice.
const PULL_BYTES: u32 = 512;

pub struct SkbPacket(pub TcContext);

impl SkbPacket {
    #[inline(always)]
    fn at<H: Header>(&self, offset: usize) -> Option<*mut H> {
        let start = self.0.data() + offset;
        if start + size_of::<H>() > self.0.data_end() {
            return None;
        }
        Some(start as *mut H)
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
        let length = self.0.len();
        let wanted = if length < PULL_BYTES {
            length
        } else {
            PULL_BYTES
        };
        if self.0.data_end() - self.0.data() >= wanted as usize {
            return false;
        }
        // SAFETY: the helper checks the length; every view is dead, `&mut self` saw to it.
        unsafe { bpf_skb_pull_data(self.0.skb.skb, wanted) == 0 }
    }
    #[inline(always)]
    fn adjust_l4_checksum(
        &mut self,
        at: L4Checksum,
        pseudo: ChecksumDelta,
        rest: ChecksumDelta,
    ) -> Option<()> {
        let skb = self.0.skb.skb;
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
        let _not_complete = unsafe { bpf_csum_update(self.0.skb.skb, change.folded()) };
    }
    #[inline(always)]
    fn advance_crc32c(&self, register: u32, bytes: u32) -> u32 {
        advance_crc32c(register, bytes)
    }
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.0.skb.skb).ifindex }
    }
}

/// `AF_INET` and `AF_INET6` on Linux.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Memory for a forwarding lookup: not the stack, where its fields at odd places could not be read.
#[inline(always)]
fn lookup() -> Option<&'static mut FibLookup> {
    let memory = SCRATCH.get_ptr_mut(1)?.cast::<FibLookup>();
    // SAFETY: large enough and aligned; integers and unions of integers, of which any bits are values; the programs of
    // a CPU run one after the other.
    let lookup = unsafe { &mut *memory };
    // SAFETY: zero bytes are a value.
    *lookup = unsafe { core::mem::zeroed() };
    Some(lookup)
}

impl SkbPacket {
    #[inline(always)]
    fn forwarded(&mut self, lookup: &mut FibLookup, bridge: u32) -> OnBridge {
        lookup.ifindex = bridge;
        // SAFETY: the pointer and its size belong together; the helper reads and writes nothing else.
        let answer = unsafe {
            bpf_fib_lookup(
                self.0.skb.skb.cast(),
                lookup,
                size_of::<FibLookup>() as i32,
                0,
            )
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

impl Forwarding<V4> for SkbPacket {
    #[inline(always)]
    fn on_bridge(
        &mut self,
        bridge: u32,
        source: <V4 as IpFamily>::Address,
        destination: <V4 as IpFamily>::Address,
    ) -> OnBridge {
        let Some(lookup) = lookup() else {
            return OnBridge::No;
        };
        lookup.family = AF_INET;
        lookup.__bindgen_anon_3.ipv4_src = source.0[0];
        lookup.__bindgen_anon_4.ipv4_dst = destination.0[0];
        self.forwarded(lookup, bridge)
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
        let Some(lookup) = lookup() else {
            return OnBridge::No;
        };
        lookup.family = AF_INET6;
        lookup.__bindgen_anon_3.ipv6_src = source.0;
        lookup.__bindgen_anon_4.ipv6_dst = destination.0;
        self.forwarded(lookup, bridge)
    }
}

/// [`crc32c::advance`] for the verifier once, not for each place that rewrites a packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn advance_crc32c(register: u32, bytes: u32) -> u32 {
    crc32c::advance(register, bytes)
}
