//! Time and chance are inputs.

/// A moment: the low 32 bits of jiffies, and how many of them make a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Differences are meaningful (modulo 2^32), values are not.
    pub jiffies: u32,
    /// The kernel's HZ.
    pub per_second: u32,
}

impl Instant {
    /// Whether at least `seconds` have passed since `earlier` (jiffies).
    #[inline(always)]
    pub const fn is_after(self, earlier: u32, seconds: u32) -> bool {
        self.jiffies.wrapping_sub(earlier) >= self.per_second.wrapping_mul(seconds)
    }
}

/// What the datapath takes from the machine besides tables.
pub trait Clock {
    /// The time.
    fn now(&self) -> Instant;
    /// 32 random bits; asked for new flows only.
    fn random(&mut self) -> u32;
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
}
