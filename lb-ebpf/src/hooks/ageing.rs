//! The sweep: run by the agent every few seconds (`BPF_PROG_TEST_RUN`), it removes what is expired in place, so that no
//! packet can come between the look and the removal for longer than the time between two instructions.
use core::ffi::c_void;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC, helpers::bpf_for_each_map_elem, macros::classifier,
    programs::TcContext,
};
use lb_common::{Counter, FlowEntry, Tuple, V4, V6, config::Timeouts};
use lb_ebpf::{
    ageing::is_expired,
    clock::{Clock as _, Instant},
    headers::Wire,
};

use super::{
    kernel_clock::KernelClock,
    maps::{AGEING, FamilyMaps},
    tables::count,
};

/// What the callback needs of the sweep.
struct Sweep {
    now: Instant,
    timeouts: Timeouts,
}

/// Removes the expired entries of `FLOWS_V4`.
#[classifier]
pub fn age_flows_v4(_ctx: TcContext) -> i32 {
    sweep::<V4>();
    TC_ACT_UNSPEC
}

/// Removes the expired entries of `FLOWS_V6`.
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
        now: KernelClock.now(),
        timeouts: *timeouts,
    };
    let callback: unsafe extern "C" fn(
        *mut c_void,
        *const Tuple<F>,
        *mut FlowEntry<F>,
        *mut Sweep,
    ) -> i64 = age_one::<F>;
    // SAFETY: the map is a hash of exactly these keys and values; the callback's context outlives the call.
    unsafe {
        bpf_for_each_map_elem(
            core::ptr::from_ref(F::flows()).cast_mut().cast(),
            callback as *mut c_void,
            core::ptr::from_mut(&mut sweep).cast(),
            0,
        );
    }
}

/// Called by the kernel for each entry; 0 goes on.
unsafe extern "C" fn age_one<F: FamilyMaps + Wire>(
    _map: *mut c_void,
    key: *const Tuple<F>,
    entry: *mut FlowEntry<F>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the kernel passes a key, a value and the context that `sweep` gave it.
    let (key, entry, sweep) = unsafe { (*key, *entry, &*sweep) };
    // SAFETY: copied out at once.
    let other = unsafe { F::flows().get(entry.other_half(&key)) }.copied();
    if is_expired(&key, &entry, other.as_ref(), &sweep.timeouts, sweep.now)
        && F::flows().remove(key).is_ok()
    {
        // Both or none: what is left of a closed flow would look half open.
        let _absent = F::flows().remove(entry.other_half(&key));
        count(Counter::FlowsExpired);
    }
    0
}
