//! What a failed test said, in a few lines, and the command that runs it alone.

use std::fmt;

/// No failure is printed with more lines; the whole output is in a file.
const LINES: usize = 12;

/// A test that failed.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    /// The suite, and where it is not this machine, where; or what else failed.
    pub(super) title: String,
    /// The name of the test; empty for what is one test by itself.
    pub(super) test: String,
    /// Why, in a few lines.
    pub(super) message: Vec<String>,
    /// The command that runs it alone.
    pub(super) command: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAILED: {}", self.title)?;
        if !self.test.is_empty() {
            write!(f, " {}", self.test)?;
        }
        for line in &self.message {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// The lines of libtest's output that tell why a test failed: those of its first panic or error,
/// without a stack trace. If the output has none, its last lines.
pub(super) fn message(output: &str, test: &str) -> Vec<String> {
    let begins = format!("---- {test} stdout ----");
    let of_test = output.lines().skip_while(|line| *line != begins).skip(1);
    let of_test: Vec<&str> = of_test
        .take_while(|line| !line.starts_with("---- ") && *line != "failures:")
        .collect();
    let reason: Vec<&str> = of_test
        .iter()
        .copied()
        .skip_while(|line| !line.contains("panicked at ") && !line.starts_with("Error: "))
        .take_while(|line| !is_trace(line))
        .collect();
    if !reason.is_empty() {
        return first_lines(&reason);
    }
    if !of_test.is_empty() {
        return last_lines(&of_test);
    }
    last_lines(&output.lines().collect::<Vec<_>>())
}

/// The lines of an error and its causes.
pub(super) fn error_message(error: &anyhow::Error) -> Vec<String> {
    first_lines(&format!("{error:#}").lines().collect::<Vec<_>>())
}

fn is_trace(line: &str) -> bool {
    line.starts_with("note: run with `RUST_BACKTRACE")
        || line
            .trim_start()
            .to_lowercase()
            .starts_with("stack backtrace:")
}

fn first_lines(lines: &[&str]) -> Vec<String> {
    let full = lines.iter().filter(|line| !line.trim().is_empty());
    full.take(LINES).map(|&line| line.to_owned()).collect()
}

fn last_lines(lines: &[&str]) -> Vec<String> {
    let full = lines.iter().filter(|line| !line.trim().is_empty()).rev();
    let mut last: Vec<String> = full.take(LINES).map(|&line| line.to_owned()).collect();
    last.reverse();
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 2 tests
test m::b ... FAILED
test m::c ... FAILED

failures:

---- m::b stdout ----
what the test printed

thread 'm::b' (7) panicked at tests/tests/netns_change.rs:95:9:
3 requests over the connection
stack backtrace:
   0: __rustc::rust_begin_unwind
   1: core::panicking::panic_fmt
note: Some details are omitted

---- m::c stdout ----
Error: cannot start nginx

Stack backtrace:
   0: anyhow::error


failures:
    m::b
    m::c
";

    #[test]
    fn message_is_the_panic_without_the_stack_trace() {
        assert_eq!(
            message(OUTPUT, "m::b"),
            [
                "thread 'm::b' (7) panicked at tests/tests/netns_change.rs:95:9:",
                "3 requests over the connection"
            ]
        );
        assert_eq!(message(OUTPUT, "m::c"), ["Error: cannot start nginx"]);
    }

    #[test]
    fn without_a_panic_the_last_lines_are_the_message() {
        let output: Vec<String> = (0..30).map(|number| format!("line {number}")).collect();
        let lines = message(&output.join("\n"), "ended with status 139");
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.last().unwrap(), "line 29");
    }

    #[test]
    fn failure_is_named_first() {
        let failure = Failure {
            title: "netns_change on Linux 6.1".to_owned(),
            test: "m::b".to_owned(),
            message: vec!["3 requests".to_owned()],
            command: String::new(),
        };
        assert_eq!(
            failure.to_string(),
            "FAILED: netns_change on Linux 6.1 m::b\n    3 requests"
        );
    }
}
