//! `cargo xtask run`: the scenario in a virtual machine.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::debian::packages;
use crate::vm::{self, GuestCommand, Job, Kernel, Line};
use crate::{ebpf, report};

/// The kernel that boots if none is named: the one of Debian's stable release.
const DEFAULT_KERNEL: &str = "6.12";

/// The whole machine's time, emulated on a slow host.
const TIME_LIMIT: Duration = Duration::from_mins(10);

/// How long a person may stay in the shell.
const SHELL_LIMIT: Duration = Duration::from_hours(12);

/// What the command line says.
#[derive(clap::Args)]
pub struct Options {
    /// A version of Debian's cloud kernel (6.1, 6.12, 6.18, ...), `newest`, or a path to an image
    /// or to an unpacked kernel package
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// Leave a shell in the machine, with the cluster running
    #[arg(long)]
    shell: bool,
}

/// Builds all, boots Linux, plays the scenario; an error unless every step held.
pub fn run(options: &Options) -> Result<()> {
    packages::ensure(&[packages::BUILD, packages::MACHINE, packages::NETWORK])?;
    ebpf::build()?;
    report::step("building waggle and the scenario", || {
        vm::build("lb-userspace", &["waggle"])?;
        vm::build("tests", &["init"])
    })?;
    let kernel = Kernel::find(&options.kernel)?;
    let verdict = report::step("running the scenario in a virtual machine", || {
        let mut show = |line: &Line<'_>| match line {
            Line::Text(text) if !options.shell => println!("{text}"),
            Line::Notice(text) => report::note(text),
            Line::ReachedInit(_)
            | Line::Begins(_)
            | Line::Exited(..)
            | Line::Verdict(_)
            | Line::Text(_) => {}
        };
        Ok(vm::run(&job(options), &kernel, &mut show)?.verdict)
    })?;
    if verdict != 0 {
        bail!("the scenario failed with status {verdict}; the kernel's log is in target/vm");
    }
    println!("Every step held.");
    Ok(())
}

fn job(options: &Options) -> Job {
    let words = ["sh", "-c", "ip -br link; nginx -v; lsmod | wc -l"];
    Job {
        name: "run".to_owned(),
        commands: vec![GuestCommand {
            variables: vec![("WAGGLE_BIN".to_owned(), "/usr/bin/waggle".to_owned())],
            words: words.map(str::to_owned).to_vec(),
        }],
        programs: vec![(vm::program("waggle"), "/usr/bin/waggle".into())],
        data: Vec::new(),
        time_limit: if options.shell {
            SHELL_LIMIT
        } else {
            TIME_LIMIT
        },
        is_interactive: options.shell,
        is_probe: false,
    }
}
