//! `cargo xtask bench`: measurements, run on this machine.

use anyhow::{Result, bail};

use crate::debian::packages;
use crate::{ebpf, process, report, workspace};

/// What is measured.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Subject {
    /// Nanoseconds per packet against a floor program (root)
    Datapath,
    /// From a changed EndpointSlice to the maps (root)
    Agent,
}

/// Builds and runs one measurement, with the rest of the command line as its arguments.
pub fn run(subject: Subject, arguments: &[String]) -> Result<()> {
    packages::ensure(&[packages::BUILD])?;
    if !process::is_root() {
        bail!("measurements load programs into this kernel and need root");
    }
    ebpf::build()?;
    // The datapath is measured by the kernel's clock: how its driver is built does not matter, and a release build of it
    // takes minutes. The agent is measured as it is shipped.
    let (program, profile) = match subject {
        Subject::Datapath => {
            ebpf::build_floor()?;
            ("bench_datapath", "dev")
        }
        Subject::Agent => ("bench_agent", "release"),
    };
    report::step(&format!("building {program}"), || {
        process::run(process::cargo().args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "--package",
            "tests",
            "--bin",
            program,
        ]))
    })?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let program = workspace::target().join(folder).join(program);
    process::run(
        std::process::Command::new(program)
            .args(arguments)
            .current_dir(workspace::root()),
    )
}
