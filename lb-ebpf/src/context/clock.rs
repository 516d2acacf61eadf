//! Moments, as the kernel counts them.

/// A moment: the low 32 bits of jiffies, and how many of them make a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Differences are meaningful (modulo 2^32), values are not.
    pub jiffies: u32,
    /// The kernel's HZ.
    pub per_second: u32,
}

/// How many jiffies a time that was noted elsewhere may be ahead of a reader's own: a minute at a thousand a second. A
/// sweep reads the clock once and then meets flows that other CPUs have touched since.
const AHEAD: u32 = 1 << 16;

impl Instant {
    /// Whether at least `seconds` have passed since `earlier` (jiffies); no, if `earlier` is still to come.
    #[inline(always)]
    pub const fn is_after(self, earlier: u32, seconds: u32) -> bool {
        let passed = self.jiffies.wrapping_sub(earlier);
        passed >= self.per_second.wrapping_mul(seconds) && passed < AHEAD.wrapping_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_over_the_wrap_of_jiffies() {
        let now = Instant {
            jiffies: 100,
            per_second: 250,
        };
        assert!(now.is_after(u32::MAX - 149, 1));
        assert!(!now.is_after(u32::MAX - 148, 1));
    }

    #[test]
    fn what_another_cpu_noted_a_moment_later_is_not_long_ago() {
        for jiffies in [1000, 1, 0, u32::MAX] {
            let now = Instant {
                jiffies,
                per_second: 250,
            };
            for ahead in [1, 250, 60_000] {
                assert!(
                    !now.is_after(jiffies.wrapping_add(ahead), 1),
                    "{jiffies} {ahead}"
                );
            }
        }
    }
}
