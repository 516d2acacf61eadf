//! Test programs run on this machine.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::suite_run::{DOCUMENTATION, SuiteRun};
use super::suites::Suite;
use super::tally::Tally;
use crate::report::Progress;
use crate::{process, report, workspace};

/// A suite that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_mins(15);

/// Runs one suite; prints its line, and all it said if it failed.
pub(super) fn run(
    suite: &Suite,
    variables: &[(&str, &str)],
    filter: Option<&str>,
    tally: &mut Tally,
) -> Result<()> {
    let mut command = Command::new(&suite.executable);
    command
        .args(filter)
        .current_dir(&suite.folder)
        .env("CARGO_MANIFEST_DIR", &suite.folder)
        .envs(variables.iter().copied());
    watch(&suite.title(), &mut command, tally)
}

/// Runs the examples in the documentation.
pub(super) fn documentation(filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args([
        "test",
        "--quiet",
        "--doc",
        "--workspace",
        "--no-fail-fast",
        "--",
    ]);
    cargo.args(filter).current_dir(workspace::root());
    watch(DOCUMENTATION, &mut cargo, tally)
}

fn watch(title: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let begin = report::now();
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command
        // A failure is told in a few lines; who wants a stack trace runs the test alone.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", process::line(command)))?;
    // Our ends of the pipe would keep it open for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let mut run = SuiteRun::new(title, None);
    let progress = Progress::default();
    progress.set(run.progress());
    report::watched(&progress, || -> Result<()> {
        loop {
            let left = TIME_LIMIT.saturating_sub(begin.elapsed());
            match lines.recv_timeout(left) {
                Ok(line) => run.line(&line),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    child
                        .kill()
                        .with_context(|| format!("cannot end {title}"))?;
                    run.line(&format!(
                        "not done within {}: ended",
                        report::seconds(TIME_LIMIT)
                    ));
                    return Ok(());
                }
            }
            progress.set(run.progress());
        }
    })?;
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {title}"))?;
    end(run, status.code().unwrap_or(-1), begin.elapsed(), tally);
    Ok(())
}

/// Counts a suite that ended; prints its line and, before that, what failed and why in a few lines.
/// All that it printed is then in a file.
pub(super) fn end(run: SuiteRun, status: i32, took: Duration, tally: &mut Tally) {
    let (title, output) = (run.title().to_owned(), run.output().to_owned());
    let measured = run.measured().to_vec();
    let (counts, failures) = tally.add(run, status);
    for failure in failures {
        println!("{failure}");
    }
    if counts.failed > 0 {
        match keep(&title, &output) {
            Ok(file) => println!("    all that {title} printed: {}", file.display()),
            Err(error) => println!("{output}\n{error:#}"),
        }
    }
    if !counts.is_empty() {
        println!("    {title}: {counts} ({})", report::seconds(took));
    }
    for figure in measured {
        println!("        {figure}");
    }
}

/// Writes what a suite printed to a file.
fn keep(title: &str, output: &str) -> Result<PathBuf> {
    let folder = workspace::target().join("test-output");
    let file = folder.join(format!("{}.txt", title.replace(' ', "-")));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, output))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
