//! A program of the control plane while it runs.

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::site::Site;
use crate::machine::process::Process;

/// A running program with its log; killed on drop, for nobody needs what it would save.
pub(super) struct Program {
    name: &'static str,
    process: Process,
}

impl Program {
    /// Starts the program of this name with flags `--flag=value`; its log is appended to.
    pub(super) fn start(
        site: &Site,
        name: &'static str,
        flags: &[(&'static str, String)],
    ) -> Result<Self> {
        let mut command = site.resident.namespace().command(site.program(name));
        command
            .args(
                flags
                    .iter()
                    .map(|(flag, value)| format!("--{flag}={value}")),
            )
            .current_dir(site.folder());
        let log = site.folder().join(format!("{name}.log"));
        let process = site
            .resident
            .run(async move { Process::start(name, command, &log) })?;
        Ok(Self { name, process })
    }

    /// An error if the program has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.ended()? {
            bail!("{} has ended: {status}", self.name);
        }
        Ok(())
    }

    /// The last lines of the log, under a heading.
    pub(super) fn log_tail(&self) -> String {
        const LINES: usize = 25;
        let log = self.process.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(LINES)..)
            .unwrap_or_default();
        format!(
            "---- end of the log of {}:\n{}\n",
            self.name,
            tail.join("\n")
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An owner that goes away has nobody to tell.
        drop(self.process.stop(Signal::SIGKILL));
    }
}
