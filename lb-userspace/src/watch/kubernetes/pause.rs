//! The pause before the API server is asked again.
use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(200);
/// Short enough that a server that is back is noticed soon, long enough that a thousand nodes do not keep it down.
const LONGEST: Duration = Duration::from_secs(10);

/// Doubles from 200 ms to 10 s, each time by chance shorter by up to a half, so that nodes do not ask in step.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
}

impl Iterator for Pause {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let full = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures += 1;
        // The keys of a hash state are random: chance enough for this.
        let chance = RandomState::new().hash_one(self.failures) % 512;
        Some(full.mul_f64(1.0 - f64::from(u16::try_from(chance).unwrap_or(0)) / 1024.0))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_anew() {
        let mut pause = Pause::default();
        let pauses: Vec<Duration> = pause.by_ref().take(12).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2, "{pauses:?}");
        assert!(
            pauses[11] <= LONGEST && pauses[11] >= LONGEST / 2,
            "{pauses:?}"
        );
        pause.reset();
        assert!(pause.next().is_some_and(|pause| pause <= FIRST));
    }
}
