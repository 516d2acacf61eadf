//! Counts what test programs report: passed, failed, skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::failure::{Failure, error_message, message};
use super::suite_run::SuiteRun;

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
    passed: usize,
    /// (suite, test) that really ran, somewhere.
    ran: BTreeSet<(String, String)>,
    /// (suite, test) and the reason given first.
    skips: BTreeMap<(String, String), String>,
    failures: Vec<Failure>,
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

impl Tally {
    /// Adds a suite that came to its end with this exit status; gives its counts and failures.
    pub(super) fn add(&mut self, mut run: SuiteRun, status: i32) -> (Counts, &[Failure]) {
        if run.is_single {
            run.passed = usize::from(status == 0);
            run.failed = vec![String::new(); usize::from(status != 0)];
        } else if !run.has_result || (status != 0 && run.failed.is_empty()) {
            // It died before it could report, or failed in a way its report does not tell.
            run.failed.push(format!("ended with status {status}"));
        }
        let counts = Counts {
            passed: run.passed.saturating_sub(run.skipped_in_passing),
            failed: run.failed.len(),
            skipped: run.skipped.len(),
        };
        self.passed += counts.passed;
        let before = self.failures.len();
        for test in &run.failed {
            self.failures.push(Failure {
                title: run.title.clone(),
                test: test.clone(),
                message: message(&run.output, test),
                command: run.command(test),
            });
        }
        let is_skipped = |test: &String| run.skipped.iter().any(|(skipped, _)| skipped == test);
        for test in run.ran.into_iter().filter(|test| !is_skipped(test)) {
            self.ran.insert((run.suite.clone(), test));
        }
        for (test, reason) in run.skipped {
            self.skips
                .entry((run.suite.clone(), test))
                .or_insert(reason);
        }
        (counts, self.failures.get(before..).unwrap_or_default())
    }

    /// Counts what could not be run as one failed test, and prints why.
    pub(super) fn add_error(&mut self, title: &str, error: &anyhow::Error, command: &str) {
        let failure = Failure {
            title: title.to_owned(),
            test: String::new(),
            message: error_message(error),
            command: command.to_owned(),
        };
        println!("{failure}");
        self.failures.push(failure);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            passed: self.passed,
            failed: self.failures.len(),
            skipped: self.skips().count(),
        }
    }

    /// (suite, test, reason) of each test that ran nowhere: one that lacked a module here and ran
    /// in a virtual machine is not skipped.
    pub(super) fn skips(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let left = self
            .skips
            .iter()
            .filter(|(test, _)| !self.ran.contains(*test));
        left.map(|((suite, test), reason)| (suite.as_str(), test.as_str(), reason.as_str()))
    }

    /// The tests of a suite that were skipped so far.
    pub(super) fn skipped_in(&self, suite: &str) -> Vec<String> {
        let of_suite = self.skips.keys().filter(|(title, _)| title == suite);
        of_suite.map(|(_, test)| test.clone()).collect()
    }

    /// All failed tests, in the order in which they ran.
    pub(super) fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite_run::SCENARIO;
    use super::*;

    fn tally(output: &str, status: i32) -> (Tally, Counts) {
        let mut run = SuiteRun::new("suite", None);
        output.lines().for_each(|line| run.line(line));
        let mut tally = Tally::default();
        let (counts, _) = tally.add(run, status);
        (tally, counts)
    }

    #[test]
    fn skips_are_taken_from_the_passed() {
        let output = "running 4 tests\nSKIPPED b: needs root\ntest a ... ok\ntest b ... ok\n\
                      test c ... ignored, slow\ntest d ... SKIPPED main: no SCTP: none\nok\n\n\
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
        let reasons: Vec<&str> = tally.skips().map(|(_, _, reason)| reason).collect();
        assert_eq!(reasons, ["needs root", "slow", "no SCTP: none"]);
    }

    #[test]
    fn what_ran_in_a_machine_is_not_skipped() {
        let (mut tally, _) = tally(
            "SKIPPED a: needs a module\nSKIPPED b: needs a module\ntest a ... ok\ntest b ... ok\n\
             test result: ok. 2 passed; 0 failed; 0 ignored",
            0,
        );
        let mut run = SuiteRun::new("suite", Some("Linux 6.1"));
        assert_eq!(run.title(), "suite on Linux 6.1");
        let output = "SKIPPED b: none here\ntest a ... ok\ntest b ... ok\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored";
        output.lines().for_each(|line| run.line(line));
        tally.add(run, 0);
        assert_eq!(
            tally.counts(),
            Counts {
                passed: 1,
                failed: 0,
                skipped: 1
            }
        );
        assert_eq!(tally.skips().next(), Some(("suite", "b", "needs a module")));
    }

    #[test]
    fn what_failed_in_a_machine_is_not_skipped() {
        let skipped = "SKIPPED a: needs a module\ntest a ... ok\n\
                       test result: ok. 1 passed; 0 failed; 0 ignored";
        let (mut tally, _) = tally(skipped, 0);
        let mut run = SuiteRun::new("suite", Some("Linux 6.1"));
        run.line("test a ... FAILED");
        run.line("test result: FAILED. 0 passed; 1 failed; 0 ignored");
        tally.add(run, 101);
        let counts = tally.counts();
        assert_eq!((counts.failed, counts.skipped), (1, 0));
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
        let [failure] = tally.failures() else {
            panic!("{:?}", tally.failures());
        };
        assert_eq!(
            (failure.title.as_str(), failure.test.as_str()),
            ("suite", "m::b")
        );
        assert_eq!(failure.command, "cargo xtask test unit m::b");
    }

    #[test]
    fn scenario_is_one_test() {
        for (status, passed, failed) in [(0, 1, 0), (1, 0, 1)] {
            let mut tally = Tally::default();
            let run = SuiteRun::new(SCENARIO, Some("Linux 6.1"));
            let (counts, failures) = tally.add(run, status);
            assert_eq!((counts.passed, counts.failed), (passed, failed));
            assert_eq!(failures.len(), failed);
        }
    }

    #[test]
    fn layer_that_cannot_run_is_a_failure() {
        let mut tally = Tally::default();
        tally.add_error(
            "Linux 6.1",
            &anyhow::anyhow!("no kernel"),
            "cargo xtask run",
        );
        assert_eq!(tally.counts().failed, 1);
        assert_eq!(tally.failures()[0].message, ["no kernel"]);
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
