//! The floor that `cargo xtask bench datapath` compares with: the least programs that do the job, and the wrappers that
//! put the packet back between two runs of `BPF_PROG_TEST_RUN` (which hands a packet on as the last run left it). One of
//! them makes it another client's each time: a flood.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
#[expect(
    clippy::panic,
    reason = "a program for the kernel, run as a process by mistake"
)]
fn main() {
    panic!("floor-bpf is an eBPF object, not a process: run `cargo xtask bench datapath`");
}

#[cfg(target_arch = "bpf")]
mod programs {
    #![expect(unsafe_code, reason = "contexts, maps and helpers are raw pointers")]
    #![expect(
        unreachable_pub,
        reason = "the attribute macros export what is `pub`; the crate is a program"
    )]
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC},
        helpers::{bpf_csum_update, bpf_l4_csum_replace},
        macros::{classifier, map},
        maps::{Array, LruHashMap, ProgramArray},
        programs::TcContext,
    };
    use lb_common::{IpFamily, Port, Tuple, V4, V6};
    use lb_ebpf::bytes::{
        checksum::ChecksumDelta,
        headers::{
            EtherType, EthernetHeader, IpHeader as _, Ipv4Header, Ipv6Header, TcpFlags, TcpHeader,
        },
        packet::Header,
    };

    /// What a flow is rewritten to: as small as it can be.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Target<F: IpFamily> {
        pub address: F::Address,
        pub port: Port,
        pub spare: u16,
    }

    /// Capacity and kind are those of the product's opening flows.
    #[map]
    pub static FLOOR_FLOWS_V4: LruHashMap<Tuple<V4>, Target<V4>> =
        LruHashMap::with_max_entries(131_072, 0);
    #[map]
    pub static FLOOR_FLOWS_V6: LruHashMap<Tuple<V6>, Target<V6>> =
        LruHashMap::with_max_entries(131_072, 0);

    /// The program under test, at index 0.
    #[map]
    pub static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

    /// How many packets the flood has sent.
    #[map]
    pub static SENT: Array<u32> = Array::with_max_entries(1, 0);

    /// The packet's first bytes, set before loading: Ethernet, the longer IP header, TCP, and some room.
    #[unsafe(no_mangle)]
    pub static TEMPLATE: [u8; 80] = [1; 80];

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    /// Nothing.
    #[classifier]
    pub fn tc_empty(_context: TcContext) -> i32 {
        TC_ACT_UNSPEC
    }

    /// Puts an IPv4 packet's headers back and runs the program under test.
    #[classifier]
    pub fn reset_v4(context: TcContext) -> i32 {
        reset::<54>(&context).map_or(TC_ACT_SHOT, |_| run(&context))
    }

    /// The same for IPv6.
    #[classifier]
    pub fn reset_v6(context: TcContext) -> i32 {
        reset::<74>(&context).map_or(TC_ACT_SHOT, |_| run(&context))
    }

    /// The same for a TCP segment over IPv4, from the next client of 11.0.0.0/8: of each a SYN, then an acknowledgement of
    /// what it cannot know. Checksums stay those of the template: they are the receiver's affair.
    #[classifier]
    pub fn flood_v4(context: TcContext) -> i32 {
        let (Some(start), Some(sent)) = (reset::<54>(&context), SENT.get_ptr_mut(0)) else {
            return TC_ACT_SHOT;
        };
        // SAFETY: the map has the entry, which nobody else writes; the packet has 54 bytes.
        unsafe {
            let number = *sent;
            *sent = number.wrapping_add(1);
            let client = 0x0b00_0000 | (number >> 1) & 0x00ff_ffff;
            let flags = if number & 1 == 0 {
                TcpFlags::SYN
            } else {
                TcpFlags::ACK
            };
            ((start + 26) as *mut u32).write_volatile(client.to_be());
            ((start + 47) as *mut u8).write_volatile(flags.0);
        }
        run(&context)
    }

    /// One fixed header chain, one lookup, one rewrite.
    #[classifier]
    pub fn floor_lru_rewrite_v4(context: TcContext) -> i32 {
        rewrite_v4(&context).map_or(TC_ACT_SHOT, |()| TC_ACT_UNSPEC)
    }

    /// The same for IPv6.
    #[classifier]
    pub fn floor_lru_rewrite_v6(context: TcContext) -> i32 {
        rewrite_v6(&context).map_or(TC_ACT_SHOT, |()| TC_ACT_UNSPEC)
    }

    /// Copies the template's bytes at `offset` to the packet.
    ///
    /// # Safety
    /// The packet has them; so has the template.
    #[inline(always)]
    unsafe fn put<T: Copy>(start: usize, offset: usize) {
        // SAFETY: the caller's. Volatile, because the value here is not the one that is loaded. Neither the packet nor a
        // read-only global has an alignment to keep.
        unsafe {
            let value = core::ptr::addr_of!(TEMPLATE)
                .cast::<u8>()
                .add(offset)
                .cast::<T>()
                .read_volatile();
            ((start + offset) as *mut T).write_volatile(value);
        }
    }

    /// Each store has the size and the place of a header field, so that a load of the program under test is served by
    /// one store that may still be on its way to memory. (A load that spans two of them has to wait.)
    #[inline(always)]
    fn reset<const BYTES: usize>(context: &TcContext) -> Option<usize> {
        let start = context.data();
        if start + BYTES > context.data_end() {
            return None;
        }
        // SAFETY: all below BYTES, which the packet has, and the template has more.
        unsafe {
            put::<u32>(start, 0);
            put::<u16>(start, 4);
            put::<u32>(start, 6);
            put::<u16>(start, 10);
            put::<u16>(start, 12);
            let mut offset = 14;
            while offset < BYTES {
                put::<u32>(start, offset);
                offset += 4;
            }
        }
        Some(start)
    }

    #[inline(always)]
    fn run(context: &TcContext) -> i32 {
        // SAFETY: the array holds programs of this kind alone.
        unsafe { PROGRAM.tail_call(context, 0) };
        TC_ACT_SHOT
    }

    #[inline(always)]
    fn header<H: Header>(context: &TcContext, offset: usize) -> Option<*mut H> {
        let start = context.data() + offset;
        (start + size_of::<H>() <= context.data_end()).then_some(start as *mut H)
    }

    /// The two checksum calls of the product, in its order.
    #[inline(always)]
    fn checksums(
        context: &TcContext,
        offset: u32,
        addresses: ChecksumDelta,
        ports: ChecksumDelta,
    ) -> Option<u32> {
        let skb = context.as_ptr().cast();
        let pseudo = addresses.folded();
        // SAFETY (both): the helper checks the offset; nothing holds a view of the packet.
        let first = unsafe {
            bpf_l4_csum_replace(
                skb,
                offset,
                0,
                u64::from(pseudo),
                u64::from(BPF_F_PSEUDO_HDR),
            )
        };
        if first != 0 {
            return None;
        }
        // SAFETY: as above.
        let second = unsafe { bpf_l4_csum_replace(skb, offset, 0, u64::from(ports.folded()), 0) };
        (second == 0).then_some(pseudo)
    }

    macro_rules! rewrite {
        ($name:ident, $family:ty, $ip:ty, $flows:ident, $ether_type:expr, $l4:literal, |$header:ident| $is_tcp:expr, |$context:ident, $pseudo:ident| $after:expr) => {
            #[inline(always)]
            fn $name($context: &TcContext) -> Option<()> {
                let ethernet = header::<EthernetHeader>($context, 0)?;
                let ip = header::<$ip>($context, size_of::<EthernetHeader>())?;
                let tcp = header::<TcpHeader>($context, $l4)?;
                // SAFETY: all three are in bounds, and `Header` takes any bytes.
                let (ethernet, $header, tcp) = unsafe { (&*ethernet, &*ip, &*tcp) };
                if ethernet.ether_type != $ether_type || !$is_tcp {
                    return None;
                }
                let key = Tuple::<$family>::new(
                    $header.source(),
                    Port::from_wire(tcp.ports.source),
                    $header.destination(),
                    Port::from_wire(tcp.ports.destination),
                    6,
                );
                let target = $flows.get_ptr(&key)?;
                // SAFETY: the lookup gave a valid value.
                let target = unsafe { *target };
                let addresses =
                    ChecksumDelta::NONE.replace(key.destination.as_ref(), target.address.as_ref());
                let ports = ChecksumDelta::NONE
                    .replace_half(key.destination_port.word(), target.port.word());
                let $pseudo = checksums($context, $l4 + 16, addresses, ports)?;
                $after;
                let ip = header::<$ip>($context, size_of::<EthernetHeader>())?;
                // SAFETY: in bounds; the only view.
                let ip = unsafe { &mut *ip };
                ip.set_destination(target.address);
                ip.adjust_checksum(addresses);
                let tcp = header::<TcpHeader>($context, $l4)?;
                // SAFETY: as above.
                unsafe { (*tcp).ports.destination = target.port.to_wire() };
                Some(())
            }
        };
    }
    rewrite!(
        rewrite_v4,
        V4,
        Ipv4Header,
        FLOOR_FLOWS_V4,
        EtherType::IPV4,
        34,
        |ip| ip.version_length == 0x45 && !ip.is_fragment() && ip.protocol == 6,
        |context, _pseudo| ()
    );
    rewrite!(
        rewrite_v6,
        V6,
        Ipv6Header,
        FLOOR_FLOWS_V6,
        EtherType::IPV6,
        54,
        |ip| ip.next_header == 6,
        |context, pseudo| {
            // SAFETY: the helper changes skb->csum only.
            let _not_complete = unsafe { bpf_csum_update(context.as_ptr().cast(), pseudo) };
        }
    );
}
