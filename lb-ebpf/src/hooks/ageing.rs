//! The sweep: run by the agent every few seconds (`BPF_PROG_TEST_RUN`), it removes what is expired in place, so that no
//! packet can come between the look and the removal for longer than the time between two instructions.
use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC, helpers::bpf_for_each_map_elem, macros::classifier,
    programs::TcContext,
};
use lb_common::{Counter, FlowEntry, Tuple, V4, V6, config::Timeouts};
use lb_ebpf::{
    bytes::headers::Wire,
    context::clock::Instant,
    flow::{
        ageing::{flow_of_masquerade, is_expired, is_expired_opening, least_opening_seconds},
        prove::udp_entries_of,
    },
};

use super::{
    environment::{add_udp_entries, count, now, read_udp_entries},
    maps::{AGEING, FamilyMaps},
};

/// What the callback needs of the sweep; on the stack, where the verifier wants it aligned.
#[repr(C, align(8))]
struct Sweep {
    now: Instant,
    timeouts: Timeouts,
    /// How many entries of FLOWS UDP flows have, as far as they were seen.
    udp_entries: u32,
}

/// Removes the expired entries of `OPENING_FLOWS_V4` and `FLOWS_V4`.
#[classifier]
pub fn age_flows_v4(_ctx: TcContext) -> i32 {
    sweep::<V4>();
    TC_ACT_UNSPEC
}

/// Removes the expired entries of `OPENING_FLOWS_V6` and `FLOWS_V6`.
#[classifier]
pub fn age_flows_v6(_ctx: TcContext) -> i32 {
    sweep::<V6>();
    TC_ACT_UNSPEC
}

#[inline(always)]
fn sweep<F: FamilyMaps + Wire>() {
    let Some(timeouts) = AGEING.get(0) else {
        return;
    };
    let mut sweep = Sweep {
        now: now(),
        timeouts: *timeouts,
        udp_entries: 0,
    };
    let before = read_udp_entries::<F>();
    let context = core::ptr::from_mut(&mut sweep).cast();
    let (of_opening, of_proven): (Callback<F>, Callback<F>) = (age_opening::<F>, age_one::<F>);
    // SAFETY: here and below, the map is a hash of exactly these keys and values; the callback's context outlives the call.
    unsafe {
        bpf_for_each_map_elem(
            core::ptr::from_ref(F::opening_flows()).cast_mut().cast(),
            of_opening as *mut c_void,
            context,
            0,
        );
    }
    // SAFETY: as above.
    unsafe {
        bpf_for_each_map_elem(
            core::ptr::from_ref(F::flows()).cast_mut().cast(),
            of_proven as *mut c_void,
            context,
            0,
        );
    }
    // What came meanwhile may have been seen or not: it counts, until the next sweep, for what it was taken for.
    let seen = black_box(&sweep).udp_entries;
    add_udp_entries::<F>(seen.wrapping_sub(before));
}

/// What the kernel calls for each entry of a table.
type Callback<F> =
    unsafe extern "C" fn(*mut c_void, *const Tuple<F>, *mut FlowEntry<F>, *mut Sweep) -> i64;

/// Called by the kernel for each opening flow's entry; 0 goes on. Only entries that are old are looked at closer: a look is
/// a use, and would keep the LRU from telling a flood from flows in use.
unsafe extern "C" fn age_opening<F: FamilyMaps + Wire>(
    _map: *mut c_void,
    key: *const Tuple<F>,
    entry: *mut FlowEntry<F>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the kernel passes a key, a value and the context that `sweep` gave it.
    let (key, entry, sweep) = unsafe { (*key, *entry, &*sweep) };
    let least = least_opening_seconds(&sweep.timeouts);
    if !sweep.now.is_after(entry.last_seen, least) {
        return 0;
    }
    let other_key = entry.other_half(&key);
    // SAFETY: copied out at once.
    let other = unsafe { F::opening_flows().get(other_key) }.copied();
    if !is_expired_opening(&key, &entry, other.as_ref(), &sweep.timeouts, sweep.now) {
        return 0;
    }
    if let Some(reply) = flow_of_masquerade(&key, &entry) {
        // SAFETY: nothing of it is read.
        let is_opening = unsafe { F::opening_flows().get(reply) }.is_some();
        // SAFETY: as above.
        if is_opening || unsafe { F::flows().get(reply) }.is_some() {
            return 0;
        }
    }
    if F::opening_flows().remove(key).is_ok() {
        let _absent = F::opening_flows().remove(other_key);
        count(Counter::FlowsExpired);
    }
    0
}

/// Called by the kernel for each entry; 0 goes on.
unsafe extern "C" fn age_one<F: FamilyMaps + Wire>(
    _map: *mut c_void,
    key: *const Tuple<F>,
    entry: *mut FlowEntry<F>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the kernel passes a key, a value and the context that `sweep` gave it.
    let (key, entry, sweep) = unsafe { (*key, *entry, &mut *sweep) };
    // SAFETY: copied out at once.
    let other = unsafe { F::flows().get(entry.other_half(&key)) }.copied();
    if is_expired(&key, &entry, other.as_ref(), &sweep.timeouts, sweep.now)
        && F::flows().remove(key).is_ok()
    {
        // Both or none: what is left of a closed flow would look half open.
        let _absent = F::flows().remove(entry.other_half(&key));
        count(Counter::FlowsExpired);
    } else {
        sweep.udp_entries += udp_entries_of(&key, &entry);
    }
    0
}
