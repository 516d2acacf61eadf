//! A clock that stands still until it is told, and chance that repeats.
use crate::context::clock::Instant;

/// How many jiffies make a second.
pub const JIFFIES_PER_SECOND: u32 = 250;

/// Settable time, seeded chance.
#[derive(Clone, Debug)]
pub struct MemoryClock {
    /// The time, in jiffies.
    pub now: u32,
    /// How many random words have been drawn.
    pub drawn: u32,
    state: u64,
}

impl MemoryClock {
    /// A clock whose random words follow from `seed`. It starts shortly before jiffies overflow, as the kernel's do.
    pub fn new(seed: u64) -> Self {
        Self {
            now: 0u32.wrapping_sub(300 * JIFFIES_PER_SECOND),
            drawn: 0,
            state: seed,
        }
    }
    /// Lets seconds pass.
    pub fn advance(&mut self, seconds: u32) {
        self.now = self.now.wrapping_add(seconds * JIFFIES_PER_SECOND);
    }
    /// The time.
    pub fn instant(&self) -> Instant {
        Instant {
            jiffies: self.now,
            per_second: JIFFIES_PER_SECOND,
        }
    }
    /// 32 random bits: the high half of `SplitMix64`.
    pub fn random(&mut self) -> u32 {
        self.drawn += 1;
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from(word >> 32).unwrap_or_default()
    }
}
