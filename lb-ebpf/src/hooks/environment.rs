//! The datapath's questions, answered by maps and helpers.
use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg},
    ptr,
};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_prandom_u32, bpf_jiffies64, generated::bpf_get_current_comm},
    maps::lpm_trie::Key,
};
use lb_common::{
    AffinityEntry, AffinityKey, BackendEntry, BackendId, Counter, DeviceEntry, FamilyNetworks,
    FlowEntry, FragmentEntry, FragmentKey, FrontendEntry, FrontendKey, ServiceEntry, ServiceId,
    SlotEntry, SocketFlowEntry, SocketFlowKey, SourceRange, Tuple, config::api_thread_words,
    hash::address_class,
};
use lb_ebpf::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        environment::{Environment, FlowTable, StoreError},
    },
};

use super::{
    flow_pointer::FlowPointer,
    maps::{
        COUNTERS, DEVICES, FLOW_MARKS, FRONTEND_EPOCH, FamilyMaps, NETWORKS, SCRATCH, SERVICES,
        SLOTS, config,
    },
};

/// The maps of the object, the kernel's clock and its chance.
pub struct Kernel;

/// The helper's answer when `BPF_NOEXIST` meets a taken key: -EEXIST.
const EXISTS: i32 = -17;

#[inline(always)]
fn stored(result: Result<(), i32>) -> Result<(), StoreError> {
    result.map_err(|error| {
        if error == EXISTS {
            StoreError::Exists
        } else {
            StoreError::Refused
        }
    })
}

impl<F: FamilyMaps + Wire> Environment<F> for Kernel {
    type Flow = FlowPointer<F>;

    #[inline(always)]
    fn udp_flows_per_client(&self) -> u32 {
        config!(udp_flows_per_client)
    }
    #[inline(always)]
    fn take_udp_entries(&mut self, entries: u32) -> bool {
        let Some(taken) = udp_entries::<F>() else {
            return false;
        };
        // SAFETY: an array's value lives as long as the map, and the field is aligned.
        let before = unsafe { add(taken, entries) };
        let is_within = before.saturating_add(entries) <= config!(udp_flow_entries);
        if !is_within {
            add_udp_entries::<F>(entries.wrapping_neg());
        }
        is_within
    }
    #[inline(always)]
    fn give_back_udp_entries(&mut self, entries: u32) {
        add_udp_entries::<F>(entries.wrapping_neg());
    }
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<F>) -> Option<FrontendEntry> {
        // SAFETY: copied out at once.
        unsafe { F::frontends().get(key) }.copied()
    }
    #[inline(always)]
    fn frontend_epoch(&self) -> u16 {
        // SAFETY: an array's value lives as long as the map; one aligned word, of which the low half counts.
        let epoch = FRONTEND_EPOCH
            .get_ptr(0)
            .map(|it| unsafe { it.read_volatile() });
        (epoch.unwrap_or_default() & 0xffff) as u16
    }
    #[inline(always)]
    fn service(&self, id: ServiceId) -> Option<ServiceEntry> {
        let service = SERVICES.get_ptr(id)?;
        // SAFETY: an array's value lives as long as the map. The region is one aligned word: either old or new.
        let (slots, algorithm, affinity_seconds, sibling) = unsafe {
            (
                ptr::addr_of!((*service).slots).read_volatile(),
                ptr::addr_of!((*service).algorithm).read_volatile(),
                ptr::addr_of!((*service).affinity_seconds).read_volatile(),
                ptr::addr_of!((*service).sibling).read_volatile(),
            )
        };
        Some(ServiceEntry {
            slots,
            algorithm,
            spare: [0; 3],
            affinity_seconds,
            sibling,
            padding: 0,
        })
    }
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<SlotEntry> {
        SLOTS.get(index).copied()
    }
    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<BackendEntry<F>> {
        F::backends().get(id).copied()
    }
    #[inline(always)]
    fn networks(&self) -> Option<&FamilyNetworks<F>> {
        NETWORKS.get(0).map(F::of_networks)
    }
    #[inline(always)]
    fn is_in_source_range(&self, service_id: ServiceId, client: &F::Address) -> bool {
        let range = SourceRange::<F> {
            service_id,
            address: (*client).into(),
        };
        let key = Key::new(SourceRange::<F>::ALL_BITS, range);
        F::source_ranges().get(key).is_some()
    }
    #[inline(always)]
    fn device(&self, interface: u32) -> Option<&DeviceEntry> {
        // SAFETY: the kernel keeps the memory alive while the program runs (RCU). An entry that is removed meanwhile may be
        // given to another device: this packet may be taken for one of that device.
        unsafe { DEVICES.get(interface) }
    }
    #[inline(always)]
    fn flow(&self, table: FlowTable, key: &Tuple<F>) -> Option<Self::Flow> {
        match table {
            FlowTable::Proven => F::flows().get_ptr_mut(key),
            FlowTable::Opening => F::opening_flows().get_ptr_mut(key),
        }
        .map(FlowPointer)
    }
    #[inline(always)]
    fn last_move(&self) -> u32 {
        // SAFETY: an array's value lives as long as the map.
        let mark = FLOW_MARKS.get_ptr(0).map_or(0, |marks| unsafe {
            ptr::addr_of!((*marks).last_move).read_volatile()
        });
        // A load-acquire instruction of BPF's own would do, and came with Linux 6.15 (commit 880442305a39).
        Environment::<F>::order_reads(self);
        mark
    }
    /// A full barrier where one is needed: an atomic instruction that fetches is one (`Documentation/atomic_t.txt`,
    /// "ORDERING"; BPF's is the kernel's own, commit 5ffa25502b5a), and this CPU's own memory costs least. The agent sets
    /// the constant before it loads the programs, so that on x86 the verifier removes all of it.
    #[inline(always)]
    fn order_reads(&self) {
        if config!(reorders_reads) != 0
            && let Some(word) = SCRATCH.get_ptr_mut(1)
        {
            // SAFETY: this CPU's own value, aligned to 8; what is in it is nobody's between two forwarding look-ups.
            black_box(unsafe { exchange(word.cast(), 0) });
        }
    }
    #[inline(always)]
    fn mark_move(&mut self) {
        // A random mark: of two CPUs that count at the same time both would leave the same number.
        let mark = random();
        if let Some(marks) = FLOW_MARKS.get_ptr_mut(0) {
            // SAFETY: an array's value lives as long as the map, and the field is aligned.
            black_box(unsafe { exchange(&raw mut (*marks).last_move, mark) });
        }
    }
    #[inline(always)]
    fn may_have_unlisted_flows(&self, destination: &F::Address) -> bool {
        let class = address_class(destination.as_ref());
        // SAFETY: as above; a class is a place in the array.
        FLOW_MARKS.get_ptr(0).is_some_and(|marks| unsafe {
            ptr::addr_of!((*marks).unlisted)
                .cast::<u8>()
                .add(class)
                .read_volatile()
                != 0
        })
    }
    #[inline(always)]
    fn mark_unlisted_flow(&mut self, destination: &F::Address) {
        let class = address_class(destination.as_ref());
        if let Some(marks) = FLOW_MARKS.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe {
                ptr::addr_of_mut!((*marks).unlisted)
                    .cast::<u8>()
                    .add(class)
                    .write_volatile(1);
            }
        }
    }
    #[inline(always)]
    fn insert_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError> {
        let flags = u64::from(BPF_NOEXIST);
        stored(match table {
            FlowTable::Proven => F::flows().insert(key, entry, flags),
            FlowTable::Opening => F::opening_flows().insert(key, entry, flags),
        })
    }
    #[inline(always)]
    fn replace_flow(
        &mut self,
        table: FlowTable,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<(), StoreError> {
        let flags = u64::from(BPF_ANY);
        stored(match table {
            FlowTable::Proven => F::flows().insert(key, entry, flags),
            FlowTable::Opening => F::opening_flows().insert(key, entry, flags),
        })
    }
    #[inline(always)]
    fn remove_flow(&mut self, table: FlowTable, key: &Tuple<F>) {
        // Not there is as good as removed.
        let _absent = match table {
            FlowTable::Proven => F::flows().remove(key),
            FlowTable::Opening => F::opening_flows().remove(key),
        };
    }
    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<F>) -> Option<FragmentEntry<F>> {
        // SAFETY: copied out at once. The memory may be given to another datagram meanwhile: its fragments then go where
        // nobody puts them together.
        unsafe { F::fragments().get(key) }.copied()
    }
    #[inline(always)]
    fn set_fragment(&mut self, key: &FragmentKey<F>, entry: &FragmentEntry<F>) -> bool {
        F::fragments()
            .insert(key, entry, u64::from(BPF_ANY))
            .is_ok()
    }
    #[inline(always)]
    fn udp_client(&self, client: &F::Address) -> u64 {
        // SAFETY: copied out at once.
        unsafe { F::udp_clients().get(client) }
            .copied()
            .unwrap_or(0)
    }
    #[inline(always)]
    fn set_udp_client(&mut self, client: &F::Address, window_and_count: u64) {
        let _refused = F::udp_clients().insert(client, window_and_count, u64::from(BPF_ANY));
    }
    #[inline(always)]
    fn socket_flow(&self, key: &SocketFlowKey<F>) -> Option<SocketFlowEntry<F>> {
        // SAFETY: copied out at once.
        unsafe { F::socket_flows().get(key) }.copied()
    }
    #[inline(always)]
    fn set_socket_flow(&mut self, key: &SocketFlowKey<F>, entry: &SocketFlowEntry<F>) -> bool {
        F::socket_flows()
            .insert(key, entry, u64::from(BPF_ANY))
            .is_ok()
    }
    #[inline(always)]
    fn affinity(&self, key: &AffinityKey<F>) -> Option<AffinityEntry> {
        // SAFETY: copied out at once. Should the memory be given to another client meanwhile, the entry is still checked
        // against the backend it names.
        unsafe { F::affinities().get(key) }.copied()
    }
    #[inline(always)]
    fn set_affinity(&mut self, key: &AffinityKey<F>, entry: &AffinityEntry) {
        let _refused = F::affinities().insert(key, entry, u64::from(BPF_ANY));
    }
    #[inline(always)]
    fn is_api_thread(&self) -> bool {
        const NAME: [u64; 2] = api_thread_words();
        let mut name = [0u64; 2];
        // SAFETY: the helper writes 16 bytes.
        let result = unsafe { bpf_get_current_comm(name.as_mut_ptr().cast(), 16) };
        result == 0 && name == NAME
    }
    #[inline(always)]
    fn count(&mut self, counter: Counter) {
        count(counter);
    }
    #[inline(always)]
    fn now(&self) -> Instant {
        now()
    }
    #[inline(always)]
    fn random(&mut self) -> u32 {
        random()
    }
}

/// Where the number of a family's entries in FLOWS that UDP has is.
#[inline(always)]
fn udp_entries<F: Wire>() -> Option<*mut u32> {
    let marks = FLOW_MARKS.get_ptr_mut(0)?;
    // SAFETY: an array's value lives as long as the map; both places are in it.
    let [v4, v6] = unsafe {
        [
            &raw mut (*marks).udp_entries[0],
            &raw mut (*marks).udp_entries[1],
        ]
    };
    Some(if F::VERSION == 4 { v4 } else { v6 })
}

/// Adds to it, modulo 2^32.
#[inline(always)]
pub fn add_udp_entries<F: Wire>(entries: u32) {
    if let Some(taken) = udp_entries::<F>() {
        // SAFETY: as in `udp_entries`; aligned.
        black_box(unsafe { add(taken, entries) });
    }
}

/// What it is now.
#[inline(always)]
pub fn read_udp_entries<F: Wire>() -> u32 {
    // SAFETY: as in `udp_entries`; aligned.
    udp_entries::<F>().map_or(0, |taken| unsafe { taken.read_volatile() })
}

/// Adds to a word that other CPUs use as well; gives what it was.
///
/// # Safety
/// `word` is valid and aligned.
#[inline(always)]
unsafe fn add(word: *mut u32, summand: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(word, summand) }
}

/// Exchanges a word that other CPUs use as well, and orders all reads and writes before it with those after it. (The
/// target's atomic types have loads and stores only, though the instruction set has more from `v3` on.)
///
/// # Safety
/// `word` is valid and aligned to its size, of 4 or 8 bytes.
#[inline(always)]
unsafe fn exchange<W: Copy>(word: *mut W, new: W) -> W {
    // SAFETY: the caller's promise.
    unsafe { atomic_xchg::<W, { AtomicOrdering::SeqCst }>(word, new) }
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_prandom_u32() }
}

/// The time.
#[inline(always)]
pub fn now() -> Instant {
    // SAFETY: the helper takes nothing and cannot fail. 1 ns where ktime costs 36.
    let jiffies = unsafe { bpf_jiffies64() };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what entries keep"
    )]
    let jiffies = jiffies as u32;
    Instant {
        jiffies,
        per_second: config!(jiffies_per_second),
    }
}

/// Adds one to this CPU's counter and returns what it was.
#[inline(always)]
pub fn count(counter: Counter) -> u64 {
    let Some(value) = COUNTERS.get_ptr_mut(counter as u32) else {
        return 0;
    };
    // SAFETY: this CPU's own value; a program is not interrupted by another of the same kind on its CPU.
    let before = unsafe { *value };
    // SAFETY: as above.
    unsafe { *value = before.wrapping_add(1) };
    before
}
