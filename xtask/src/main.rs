//! `cargo xtask COMMAND`: the list of commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs and tests Waggle; installs what is missing and says so.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the object of the kernel programs, target/bpf/waggle-bpf
    Ebpf,
    /// Find or build etcd and the programs of Kubernetes that the tests run; print their folder
    ControlPlane,
    /// Boot Linux in a virtual machine and play the scenario in it
    Run(xtask::run::Options),
    /// Run the tests: all, or those of one layer
    Test(xtask::test::Options),
    /// Check formatting, lints, documentation, file lengths and dependencies
    Check,
    /// Measure; further arguments go to the measuring program
    Bench {
        /// What is measured
        subject: xtask::bench::Subject,
        /// Arguments of the measuring program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Ebpf => xtask::ebpf::build(),
        Command::ControlPlane => xtask::control_plane::print(),
        Command::Run(options) => xtask::run::run(&options),
        Command::Test(options) => xtask::test::run(&options),
        Command::Check => xtask::check::run(),
        Command::Bench { subject, arguments } => xtask::bench::run(subject, &arguments),
    };
    xtask::report::exit_code(result)
}
