//! A program that runs beside the test: its output is kept, and it ends with its owner.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::now;

/// How long a program may take to end after a signal before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Waits until `is_ready` says so; an error with its log if it ends or `limit` passes first.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        mut is_ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let begin = now();
        while !is_ready()? {
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status}:\n{}", self.name, self.log());
            }
            if begin.elapsed() > limit {
                bail!("{} not ready in {limit:?}:\n{}", self.name, self.log());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends a signal; nothing if the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let id = i32::try_from(self.child.id()).context("a process id")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("signal {}", self.name))
    }

    /// Waits for its end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begin = now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if begin.elapsed() > limit {
                bail!("{} has not ended in {limit:?}", self.name);
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end and waits; kills it if it does not within ten seconds.
    pub fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        if let Ok(status) = self.wait(PATIENCE) {
            return Ok(status);
        }
        self.child.kill()?;
        self.wait(PATIENCE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An owner that goes away has nobody to tell.
        drop(self.stop(Signal::SIGTERM));
    }
}
