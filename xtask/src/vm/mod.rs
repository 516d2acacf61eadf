//! Runs commands in a virtual machine of its own kernel, and brings back how they ended.

mod archive;
mod console;
mod guest;
pub(crate) mod kernel;
mod libraries;
mod modules;
mod qemu;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) use console::Line;
pub(crate) use kernel::Kernel;

use crate::debian::packages;
use crate::{process, report, workspace};

/// What a machine is to do.
pub(crate) struct Job {
    /// Names the files this leaves under target/vm.
    pub(crate) name: String,
    /// What it runs, one after the other.
    pub(crate) commands: Vec<GuestCommand>,
    /// Programs of this machine and their places in the other.
    pub(crate) programs: Vec<(PathBuf, PathBuf)>,
    /// Other files and their places.
    pub(crate) data: Vec<(PathBuf, PathBuf)>,
    /// The machine is ended after this time, which is an error.
    pub(crate) time_limit: Duration,
    /// Whether this machine's terminal is that of the commands.
    pub(crate) is_interactive: bool,
    /// Whether it is only to be seen that the machine starts.
    pub(crate) is_probe: bool,
}

/// One command inside the machine.
#[derive(Default)]
pub(crate) struct GuestCommand {
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) words: Vec<String>,
}

impl Job {
    /// The job as `tests/src/bin/init.rs` reads it: a command a line, fields separated by tabs.
    fn text(&self) -> Result<String> {
        let mut text = String::new();
        for command in &self.commands {
            let variables = command
                .variables
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            let terminal = self.is_interactive.then(|| "!terminal".to_owned());
            let fields: Vec<String> = terminal
                .into_iter()
                .chain(variables)
                .chain(command.words.clone())
                .collect();
            if fields.iter().any(|field| field.contains(['\t', '\n'])) {
                bail!("a command for the machine holds a tab or newline: {fields:?}");
            }
            text.push_str(&fields.join("\t"));
            text.push('\n');
        }
        Ok(text)
    }
}

/// How a machine ended.
pub(crate) struct Outcome {
    /// 0, or the status of the first command that failed.
    pub(crate) verdict: i32,
}

/// Boots the kernel, does the job, calls `said` with every line the machine says.
pub(crate) fn run(job: &Job, kernel: &Kernel, said: &mut dyn FnMut(&Line<'_>)) -> Result<Outcome> {
    packages::ensure(&[packages::MACHINE])?;
    let accelerator = qemu::accelerator(kernel)?;
    let folder = workspace::target().join("vm");
    let initramfs = folder.join(format!("{}-{}.cpio", job.name, std::process::id()));
    let size = guest::write(job, kernel, &initramfs)?;
    report::note(&format!(
        "Linux {}, {}, {} MB in its file system",
        kernel.release,
        accelerator.describe(),
        size >> 20
    ));
    let outcome = qemu::boot(job, kernel, &initramfs, accelerator, said);
    fs::remove_file(&initramfs)
        .with_context(|| format!("cannot remove {}", initramfs.display()))?;
    outcome
}

/// PID 1 of the machine, built where it is not yet.
fn init() -> Result<PathBuf> {
    build(&["init"])?;
    Ok(program("init"))
}

/// Builds programs of the agent's and the tests' packages; quick if nothing changed.
///
/// Both packages are always named: what cargo builds depends on which are, and every other choice
/// would build much of it twice.
pub(crate) fn build(programs: &[&str]) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "lb-userspace",
        "--package",
        "tests",
    ]);
    for name in programs {
        cargo.args(["--bin", name]);
    }
    process::run(&mut cargo)
}

/// Where cargo puts a program.
pub(crate) fn program(name: &str) -> PathBuf {
    workspace::target().join("debug").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(is_interactive: bool, words: &[&str]) -> Job {
        Job {
            name: "test".to_owned(),
            commands: vec![GuestCommand {
                variables: vec![("WAGGLE_BIN".to_owned(), "/bin/waggle".to_owned())],
                words: words.iter().map(|&word| word.to_owned()).collect(),
            }],
            programs: Vec::new(),
            data: Vec::new(),
            time_limit: Duration::ZERO,
            is_interactive,
            is_probe: false,
        }
    }

    #[test]
    fn job_is_a_line_of_fields_for_each_command() {
        let text = job(false, &["scenario", "--name=a b"]).text().unwrap();
        assert_eq!(text, "WAGGLE_BIN=/bin/waggle\tscenario\t--name=a b\n");
        let text = job(true, &["sh"]).text().unwrap();
        assert_eq!(text, "!terminal\tWAGGLE_BIN=/bin/waggle\tsh\n");
    }

    #[test]
    fn fields_cannot_break_the_line() {
        assert!(job(false, &["sh", "-c", "a\nb"]).text().is_err());
    }
}
