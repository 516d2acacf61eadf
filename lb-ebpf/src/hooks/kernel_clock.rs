//! Time and chance from the kernel.
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_jiffies64};
use lb_ebpf::context::clock::{Clock, Instant};

use super::maps::config;

pub struct KernelClock;

impl Clock for KernelClock {
    #[inline(always)]
    fn now(&self) -> Instant {
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
    #[inline(always)]
    fn random(&mut self) -> u32 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_get_prandom_u32() }
    }
}
