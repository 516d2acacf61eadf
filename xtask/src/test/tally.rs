//! Counts what test programs report: passed, failed, skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    failures: Vec<(String, String)>,
}

/// One run of one suite, read line by line.
pub(super) struct SuiteRun {
    suite: String,
    /// How the run is called: the suite, and where it is not this machine, where.
    title: String,
    passed: usize,
    ran: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
    /// Those of the skipped that libtest counts as passed, for they end without a panic.
    skipped_in_passing: usize,
    /// Figures that tests tell, for a person to read.
    measured: Vec<String>,
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

impl Tally {
    /// Adds a suite that came to its end with this exit status; gives its counts.
    pub(super) fn add(&mut self, mut run: SuiteRun, status: i32) -> Counts {
        // It died before it could report, or failed in a way its report does not tell.
        if !run.has_result || (status != 0 && run.failed.is_empty()) {
            run.failed.push(format!("ended with status {status}"));
        }
        let counts = Counts {
            passed: run.passed.saturating_sub(run.skipped_in_passing),
            failed: run.failed.len(),
            skipped: run.skipped.len(),
        };
        self.passed += counts.passed;
        let is_skipped = |test: &String| run.skipped.iter().any(|(skipped, _)| skipped == test);
        for test in run.ran.into_iter().filter(|test| !is_skipped(test)) {
            self.ran.insert((run.suite.clone(), test));
        }
        for (test, reason) in run.skipped {
            self.skips
                .entry((run.suite.clone(), test))
                .or_insert(reason);
        }
        for test in run.failed {
            self.failures.push((run.title.clone(), test));
        }
        counts
    }

    /// Adds something that is one test by itself, such as the scenario.
    pub(super) fn add_single(&mut self, title: &str, is_passed: bool) -> Counts {
        let (passed, failed) = (usize::from(is_passed), usize::from(!is_passed));
        self.passed += passed;
        if !is_passed {
            self.failures.push((title.to_owned(), String::new()));
        }
        Counts {
            passed,
            failed,
            skipped: 0,
        }
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

    /// (suite, test)
    pub(super) fn failures(&self) -> &[(String, String)] {
        &self.failures
    }
}

impl SuiteRun {
    /// A run of a suite on this machine, or in the place of that name.
    pub(super) fn new(suite: &str, place: Option<&str>) -> Self {
        let place = place
            .map(|place| format!(" on {place}"))
            .unwrap_or_default();
        Self {
            suite: suite.to_owned(),
            title: format!("{suite}{place}"),
            passed: 0,
            ran: Vec::new(),
            failed: Vec::new(),
            skipped: Vec::new(),
            skipped_in_passing: 0,
            measured: Vec::new(),
            has_result: false,
            output: String::new(),
        }
    }

    /// How the run is called.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// All lines so far.
    pub(super) fn output(&self) -> &str {
        &self.output
    }

    /// The figures that its tests have told.
    pub(super) fn measured(&self) -> &[String] {
        &self.measured
    }

    /// Takes a line of what libtest and the tests print.
    pub(super) fn line(&mut self, line: &str) {
        self.output.push_str(line);
        self.output.push('\n');
        // With one thread libtest has written the test's name before, and the thread has none.
        let written = |before: &'_ str| {
            let name = before.strip_prefix("test ")?.strip_suffix(" ... ")?;
            Some(name.to_owned())
        };
        if let Some((before, figure)) = line.split_once("MEASURED ")
            && (before.is_empty() || written(before).is_some())
        {
            self.measured.push(figure.to_owned());
            self.ran.extend(written(before));
            return;
        }
        if let Some((before, skip)) = line.split_once("SKIPPED ") {
            let written = written(before);
            if (before.is_empty() || written.is_some())
                && let Some((test, reason)) = skip.split_once(": ")
            {
                let test = written.unwrap_or_else(|| test.to_owned());
                self.skipped.push((test, reason.to_owned()));
                self.skipped_in_passing += 1;
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
            self.ran.push(name.to_owned());
            self.failed.push(name.to_owned());
        } else if outcome == "ok" {
            self.ran.push(name.to_owned());
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "ignored" } else { reason };
            self.skipped.push((name.to_owned(), reason.to_owned()));
        }
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
        let mut run = SuiteRun::new("suite", None);
        output.lines().for_each(|line| run.line(line));
        let mut tally = Tally::default();
        let counts = tally.add(run, status);
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
    fn figures_are_kept_and_their_tests_are_counted() {
        let mut run = SuiteRun::new("suite", None);
        let output = "MEASURED 3 ms\ntest a ... ok\ntest b ... MEASURED 4 ms\nok\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored";
        output.lines().for_each(|line| run.line(line));
        assert_eq!(run.measured(), ["3 ms", "4 ms"]);
        assert_eq!(run.ran, ["a", "b"]);
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
