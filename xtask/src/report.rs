//! What the person at the terminal reads: one line per step, with the time it took.

use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often work that takes long says that it goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Says what is being done, does it, says how long it took; in between, that it goes on.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    step_with(what, &Progress::default(), work)
}

/// A step that tells how far it is.
pub(crate) fn step_with<T>(
    what: &str,
    progress: &Progress,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    terminal_step(what, || watched(progress, work))
}

/// A step that has the terminal to itself: nothing is printed while it lasts.
pub(crate) fn terminal_step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let begin = now();
    let result = work();
    let outcome = if result.is_ok() { "done" } else { "failed" };
    println!("    {outcome} after {}", seconds(begin.elapsed()));
    result
}

/// Does work and says from time to time that it goes on, with what `progress` tells of it.
pub(crate) fn watched<T>(progress: &Progress, work: impl FnOnce() -> T) -> T {
    let begin = now();
    // Dropped when the work is done or panics, which ends the thread.
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
                let took = seconds(begin.elapsed());
                note(&format!("{}at work for {took}", progress.get()));
            }
        });
        let result = work();
        drop(end);
        result
    })
}

/// How far work is: words that stand before `at work for 30.0 s`.
#[derive(Default)]
pub(crate) struct Progress(Mutex<String>);

impl Progress {
    pub(crate) fn set(&self, words: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    fn get(&self) -> String {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.clone()
    }
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
