//! `cargo xtask bench`: measurements, built for release and run on this machine.

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
    let program = match subject {
        Subject::Datapath => "bench_datapath",
        Subject::Agent => "bench_agent",
    };
    report::step(&format!("building {program} for release"), || {
        process::run(process::cargo().args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "tests",
            "--bin",
            program,
        ]))
    })?;
    let program = workspace::target().join("release").join(program);
    process::run(
        std::process::Command::new(program)
            .args(arguments)
            .current_dir(workspace::root()),
    )
}
