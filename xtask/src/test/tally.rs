//! Counts what test programs report: passed, failed, skipped.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

/// All that was counted, over all suites.
#[derive(Default)]
pub(super) struct Tally {
    counts: Counts,
    skips: Vec<(String, String, String)>,
    failures: Vec<(String, String)>,
}

/// One run of one suite, read line by line.
pub(super) struct SuiteRun {
    title: String,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
    has_result: bool,
    output: String,
}

impl Counts {
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Tally {
    /// Adds a suite that came to its end with this exit status; gives its counts.
    pub(super) fn add(&mut self, mut run: SuiteRun, status: i32) -> Counts {
        // It died before it could report, or failed in a way its report does not tell.
        if !run.has_result || (status != 0 && run.failed.is_empty()) {
            run.failed.push(format!("ended with status {status}"));
        }
        let counts = Counts {
            passed: run.passed.saturating_sub(run.skipped_while_passing()),
            failed: run.failed.len(),
            skipped: run.skipped.len(),
        };
        self.counts += counts;
        for (test, reason) in run.skipped {
            self.skips.push((run.title.clone(), test, reason));
        }
        for test in run.failed {
            self.failures.push((run.title.clone(), test));
        }
        counts
    }

    /// Adds something that is one test by itself, such as the scenario.
    pub(super) fn add_single(&mut self, title: &str, is_passed: bool) -> Counts {
        let counts = Counts {
            passed: usize::from(is_passed),
            failed: usize::from(!is_passed),
            skipped: 0,
        };
        self.counts += counts;
        if !is_passed {
            self.failures.push((title.to_owned(), String::new()));
        }
        counts
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// (suite, test, reason)
    pub(super) fn skips(&self) -> &[(String, String, String)] {
        &self.skips
    }

    /// (suite, test)
    pub(super) fn failures(&self) -> &[(String, String)] {
        &self.failures
    }
}

impl SuiteRun {
    pub(super) fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            passed: 0,
            failed: Vec::new(),
            skipped: Vec::new(),
            has_result: false,
            output: String::new(),
        }
    }

    /// All lines so far.
    pub(super) fn output(&self) -> &str {
        &self.output
    }

    /// Takes a line of what libtest and the tests print.
    pub(super) fn line(&mut self, line: &str) {
        self.output.push_str(line);
        self.output.push('\n');
        if let Some((before, skip)) = line.split_once("SKIPPED ") {
            // With one thread libtest has written `test name ... ` before.
            if (before.is_empty() || before.ends_with("... "))
                && let Some((test, reason)) = skip.split_once(": ")
            {
                self.skipped.push((test.to_owned(), reason.to_owned()));
            }
            return;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count_before(result, " passed");
            self.has_result = true;
            return;
        }
        let Some((name, outcome)) = line
            .strip_prefix("test ")
            .and_then(|l| l.rsplit_once(" ... "))
        else {
            return;
        };
        if outcome == "FAILED" {
            self.failed.push(name.to_owned());
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "ignored" } else { reason };
            self.skipped.push((name.to_owned(), reason.to_owned()));
        }
    }

    /// Tests that said they skip and count as passed in libtest's result, unlike ignored ones.
    fn skipped_while_passing(&self) -> usize {
        let is_said =
            |test: &&(String, String)| self.output.contains(&format!("SKIPPED {}:", test.0));
        self.skipped.iter().filter(is_said).count()
    }
}

/// The number that stands before a word, as in `ok. 3 passed; 0 failed`.
fn count_before(text: &str, word: &str) -> usize {
    let Some((before, _)) = text.split_once(word) else {
        return 0;
    };
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str, status: i32) -> (Tally, Counts) {
        let mut run = SuiteRun::new("suite");
        output.lines().for_each(|line| run.line(line));
        let mut tally = Tally::default();
        let counts = tally.add(run, status);
        (tally, counts)
    }

    #[test]
    fn skips_are_taken_from_the_passed() {
        let output = "running 4 tests\nSKIPPED b: needs root\ntest a ... ok\ntest b ... ok\n\
                      test c ... ignored, slow\ntest d ... SKIPPED d: no SCTP: none\nok\n\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        let (tally, counts) = tally(output, 0);
        assert_eq!(
            counts,
            Counts {
                passed: 1,
                failed: 0,
                skipped: 3
            }
        );
        let reasons: Vec<&str> = tally.skips().iter().map(|skip| skip.2.as_str()).collect();
        assert_eq!(reasons, ["needs root", "slow", "no SCTP: none"]);
    }

    #[test]
    fn failures_are_named() {
        let output = "test a ... ok\ntest m::b ... FAILED\n\
                      test result: FAILED. 1 passed; 1 failed; 0 ignored";
        let (tally, counts) = tally(output, 101);
        assert_eq!(
            counts,
            Counts {
                passed: 1,
                failed: 1,
                skipped: 0
            }
        );
        assert_eq!(tally.failures(), [("suite".to_owned(), "m::b".to_owned())]);
    }

    #[test]
    fn suite_that_dies_is_a_failure() {
        let (_, counts) = tally("test a ... ok", 139);
        assert_eq!((counts.passed, counts.failed), (0, 1));
        let (_, counts) = tally("test result: ok. 1 passed; 0 failed", 1);
        assert_eq!((counts.passed, counts.failed), (1, 1));
    }

    #[test]
    fn closing_line_has_its_form() {
        let counts = Counts {
            passed: 12,
            failed: 0,
            skipped: 3,
        };
        assert_eq!(counts.to_string(), "12 passed, 0 failed, 3 skipped");
    }
}
