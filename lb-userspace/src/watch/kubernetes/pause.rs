//! The pause before the API server is asked again.
use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(200);
/// Short enough that a server that is back is noticed soon, long enough that a thousand nodes do not keep it down.
const LONGEST: Duration = Duration::from_secs(10);

/// After so long without a failure the pauses begin anew; more than the longest pause and the attempt after it.
const CALM: Duration = Duration::from_secs(30);

/// Doubles from 200 ms to 10 s, each time by chance shorter by up to a half, so that nodes do not ask in step.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    last_failure: Option<Instant>,
}

impl Pause {
    fn after_failure_at(&mut self, now: Instant) -> Duration {
        let is_calm = |last: Instant| now.duration_since(last) > CALM;
        if self.last_failure.is_some_and(is_calm) {
            self.failures = 0;
        }
        self.last_failure = Some(now);
        let full = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // The keys of a hash state are random: chance enough for this.
        let chance = RandomState::new().hash_one(self.failures) % 512;
        full.mul_f64(1.0 - f64::from(u16::try_from(chance).unwrap_or(0)) / 1024.0)
    }
}

impl Iterator for Pause {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(self.after_failure_at(Instant::now()))
    }
}

impl Backoff for Pause {
    /// kube calls this for every word of the stream, and its first word (`Init`) comes before the API server is asked:
    /// while nobody answers, the pauses would never grow. Only time without a failure counts.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_anew_after_a_calm() {
        let mut pause = Pause::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            // What kube does when it begins to list.
            pause.reset();
            pauses.push(pause.after_failure_at(now));
            now += LONGEST;
        }
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2, "{pauses:?}");
        assert!(
            pauses[11] <= LONGEST && pauses[11] >= LONGEST / 2,
            "{pauses:?}"
        );
        assert!(pause.after_failure_at(now + CALM) <= FIRST);
    }
}
