//! What the person at the terminal reads: one line per step, with the time it took.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Says what is being done, does it, says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let begin = now();
    let result = work();
    let outcome = if result.is_ok() { "done" } else { "failed" };
    println!("    {outcome} after {}", seconds(begin.elapsed()));
    result
}

/// One indented line below a step.
pub(crate) fn note(text: &str) {
    println!("    {text}");
}

/// Prints an error with its causes and gives the exit code of the command.
pub fn exit_code(result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    ExitCode::FAILURE
}

/// The clock of the commands.
#[expect(
    clippy::disallowed_methods,
    reason = "a command says how long its steps took"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A duration as a person says it: `0.4 s`, `12.0 s`, `3 min 5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_mins(1) {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    format!(
        "{} min {} s",
        duration.as_secs() / 60,
        duration.as_secs() % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        assert_eq!(seconds(Duration::from_millis(449)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(12)), "12.0 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 5 s");
    }
}
