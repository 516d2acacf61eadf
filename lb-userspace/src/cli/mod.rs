//! The command line. Exit status: 0 done, 1 it did not work, 2 the command line is wrong.
#![expect(
    clippy::print_stderr,
    reason = "a command line program speaks on standard error"
)]
mod affinity;
mod cleanup;
mod devices;
mod get;
mod probe;
mod run;
mod status;
mod table;
mod trace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::datapath::BpfRoot;

/// Where maps and links are pinned, if nothing else is said.
const BPF_ROOT: &str = "/sys/fs/bpf/waggle";
/// Where the agent's lock and socket are, if nothing else is said.
const RUN_DIR: &str = "/run/waggle";

/// eBPF load balancer for Kubernetes Services, in place of kube-proxy.
///
/// `waggle run` is the agent: it reads Services and their endpoints from an API server or from a folder of manifests and
/// fills BPF maps. Programs on network devices and sockets send each new connection to a live backend. The other
/// commands show or remove what the agent has set up.
#[derive(Debug, Parser)]
#[command(name = "waggle", version, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  waggle run --manifests examples/my-service     serve the Services in a folder, no cluster needed
  waggle run --kubeconfig ~/.kube/config         serve a cluster's Services on this node
  waggle status                                  show attachments, maps and problems
  waggle get services -o wide                    list Services and the number of their backends
  waggle get flows | grep 10.96.0.80             list the connections through a Service
  waggle trace --proto tcp --src 10.244.1.9:40000 --dst 10.96.0.80:80    show which backend a packet would get, and why
  waggle cleanup                                 remove everything from the kernel";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of this node
    Run(Box<run::Arguments>),
    /// Show attachments, the fill of the maps and problems; fails until the agent is ready
    Status(status::Arguments),
    /// Show services, backends, flows or affinity
    Get(get::Arguments),
    /// Show what would happen to a packet, by the maps of the agent or a folder of manifests
    Trace(Box<trace::Arguments>),
    /// Show what this kernel and each network device support, without changing anything
    Probe(probe::Arguments),
    /// Detach all programs and remove all maps of this node; connections through Services break
    Cleanup(cleanup::Arguments),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  waggle completions bash > /etc/bash_completion.d/waggle")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Which agent is meant.
#[derive(Args, Clone, Debug)]
struct Paths {
    /// Where maps and links are pinned
    #[arg(long, value_name = "DIR", default_value = BPF_ROOT)]
    bpf_root: PathBuf,
    /// Where the agent's lock and socket are
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
}

impl Paths {
    fn root(&self) -> BpfRoot {
        BpfRoot::new(&self.bpf_root)
    }
}

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns: framed on a terminal, plain in a pipe.
    Table,
    /// More columns.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Writes a value as JSON or YAML, or whatever `table` makes of it.
fn print<T: serde::Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(bool) -> String,
) -> Result<()> {
    let text = match format {
        Format::Table => table::harmless(&table(false)).into_owned(),
        Format::Wide => table::harmless(&table(true)).into_owned(),
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => serde_saphyr::to_string(value)?,
    };
    Ok(table::print(&text)?)
}

/// Runs the program.
pub fn main() -> ExitCode {
    // A wrong command line ends here, with status 2.
    let result = match CommandLine::parse().command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Status(arguments) => return exit(status::status(&arguments)),
        Command::Get(arguments) => get::get(&arguments),
        Command::Trace(arguments) => return exit(trace::trace(&arguments)),
        Command::Probe(arguments) => probe::probe(&arguments),
        Command::Cleanup(arguments) => cleanup::cleanup(&arguments),
        Command::Completions { shell } => {
            let mut command = CommandLine::command();
            clap_complete::generate(shell, &mut command, "waggle", &mut std::io::stdout());
            Ok(())
        }
    };
    exit(result.map(|()| true))
}

fn exit(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("waggle: {}", table::harmless(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_but_completions_takes_the_paths() {
        for words in [
            "run --manifests x",
            "status",
            "get services",
            "trace --batch -",
            "probe",
            "cleanup",
        ] {
            let line = format!("waggle {words} --bpf-root /a --run-dir /b");
            CommandLine::try_parse_from(line.split(' ')).unwrap();
        }
    }
}
