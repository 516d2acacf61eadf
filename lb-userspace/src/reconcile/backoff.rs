//! When to try again.
use std::time::Duration;

/// A pause that doubles with each failure, up to a limit.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    until: Duration,
}

impl Backoff {
    /// No pause yet.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
            until: Duration::ZERO,
        }
    }

    /// It failed at `now`.
    pub fn failed(&mut self, now: Duration) {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.until = now + self.first.saturating_mul(factor).min(self.longest);
        self.failures = self.failures.saturating_add(1);
    }

    /// It succeeded: the next failure pauses for the shortest time.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.until = Duration::ZERO;
    }

    /// When to try again, if it has failed.
    pub fn until(&self) -> Option<Duration> {
        (self.failures > 0).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_limit_and_begins_anew_after_success() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 3);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            backoff.failed(second * 10);
            pauses.push(
                backoff
                    .until()
                    .map(|until| until.saturating_sub(second * 10).as_secs()),
            );
        }
        assert_eq!(pauses, [Some(1), Some(2), Some(3), Some(3)]);
        backoff.succeeded();
        assert_eq!(backoff.until(), None);
    }
}
