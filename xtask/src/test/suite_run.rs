//! One run of one suite, as its output tells of it.

use super::Layer;

/// The title of the scenario, which is one test by itself.
pub(super) const SCENARIO: &str = "scenario";

/// The title of the examples in the documentation.
pub(super) const DOCUMENTATION: &str = "examples in the documentation";

/// One run of one suite, read line by line.
pub(super) struct SuiteRun {
    pub(super) suite: String,
    /// How the run is called: the suite, and where it is not this machine, where.
    pub(super) title: String,
    pub(super) is_on_host: bool,
    /// One test by itself, such as the scenario: its exit status tells all.
    pub(super) is_single: bool,
    pub(super) passed: usize,
    pub(super) ran: Vec<String>,
    pub(super) failed: Vec<String>,
    pub(super) skipped: Vec<(String, String)>,
    /// Those of the skipped that libtest counts as passed, for they end without a panic.
    pub(super) skipped_in_passing: usize,
    /// Figures that tests tell, for a person to read.
    pub(super) measured: Vec<String>,
    pub(super) has_result: bool,
    pub(super) output: String,
}

impl SuiteRun {
    /// A run of a suite on this machine, or in the place of that name.
    pub(super) fn new(suite: &str, place: Option<&str>) -> Self {
        let on_place = place
            .map(|place| format!(" on {place}"))
            .unwrap_or_default();
        Self {
            suite: suite.to_owned(),
            title: format!("{suite}{on_place}"),
            is_on_host: place.is_none(),
            is_single: suite == SCENARIO,
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

    /// The command that runs one of its tests alone, or all of them if `test` is empty.
    pub(super) fn command(&self, test: &str) -> String {
        match self.suite.as_str() {
            SCENARIO => return "cargo xtask test vm".to_owned(),
            DOCUMENTATION => return "cargo test --doc --workspace".to_owned(),
            _ => {}
        }
        let layer = Layer::of_suite(&self.suite);
        let is_of_matrix = matches!(layer, Layer::Kernel | Layer::Netns) && !self.is_on_host;
        let layer = if is_of_matrix { Layer::Vm } else { layer };
        // Not the name of a test, for a suite that died.
        let test = if test.contains(' ') { "" } else { test };
        format!("cargo xtask test {} {test}", layer.name())
            .trim_end()
            .to_owned()
    }

    /// What has come of it so far, for a person who waits: `netns_change: 3 tests done, `.
    pub(super) fn progress(&self) -> String {
        format!("{}: {} tests done, ", self.title, self.ran.len())
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

    #[test]
    fn command_runs_the_test_where_it_failed() {
        let command = |suite, place| SuiteRun::new(suite, place).command("a");
        assert_eq!(command("netns_change", None), "cargo xtask test netns a");
        assert_eq!(
            command("netns_change", Some("Linux 6.1")),
            "cargo xtask test vm a"
        );
        assert_eq!(command("lb-ebpf", None), "cargo xtask test unit a");
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
}
