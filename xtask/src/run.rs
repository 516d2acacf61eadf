//! `cargo xtask run`: the scenario in a virtual machine.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::debian::packages;
use crate::vm::{self, GuestCommand, Job, Kernel, Line, kernel};
use crate::{ebpf, report};

/// What a machine with the scenario runs.
pub(crate) const PROGRAMS: &[&str] = &["waggle", "init", "scenario"];

/// The whole machine's time, emulated on a slow host.
const TIME_LIMIT: Duration = Duration::from_mins(10);

/// How long a person may stay in the shell.
const SHELL_LIMIT: Duration = Duration::from_hours(12);

/// What the command line says.
#[derive(clap::Args)]
pub struct Options {
    /// A version the distribution has (Debian: 6.1, 6.12, 6.18, ...), `newest`, or a path to an
    /// image or to an unpacked kernel package [default: 6.12; on Ubuntu newest]
    #[arg(long)]
    kernel: Option<String>,
    /// Leave a shell in the machine, with the cluster running
    #[arg(long)]
    shell: bool,
    /// The pod network [default: routed]
    #[arg(long, value_parser = ["routed", "point-to-point", "bridged", "bridged-netfilter", "vxlan"])]
    network: Option<String>,
}

/// Builds all, boots Linux, plays the scenario; an error unless every step held.
pub fn run(options: &Options) -> Result<()> {
    let begin = report::now();
    packages::ensure(&[packages::BUILD, packages::MACHINE, packages::SCENARIO])?;
    // A kernel that there is not is said before anything is built.
    let kernel = Kernel::find(options.kernel.as_deref().unwrap_or(kernel::default()))?;
    ebpf::build()?;
    report::step("building waggle and the scenario", || vm::build(PROGRAMS))?;
    let mut job = Job {
        name: "run".to_owned(),
        commands: Vec::new(),
        programs: Vec::new(),
        data: Vec::new(),
        time_limit: if options.shell {
            SHELL_LIMIT
        } else {
            TIME_LIMIT
        },
        is_interactive: options.shell,
        is_probe: false,
    };
    let mut flags: Vec<&str> = options.shell.then_some("--keep").into_iter().collect();
    if let Some(network) = &options.network {
        flags.extend(["--network", network]);
    }
    add_scenario(&mut job, &flags);
    let verdict = report::terminal_step("playing the scenario in a virtual machine", || {
        let mut show = |line: &Line<'_>| match line {
            // In the shell's machine every byte is on the terminal already.
            Line::Text(text) if !options.shell => println!("{text}"),
            Line::Notice(text) => report::note(text),
            Line::ReachedInit(_)
            | Line::Begins(_)
            | Line::Exited(..)
            | Line::Verdict(_)
            | Line::Text(_) => {}
        };
        Ok(vm::run(&job, &kernel, &mut show)?.verdict)
    })?;
    if verdict != 0 {
        bail!("the scenario failed with status {verdict}; the kernel's log is in target/vm");
    }
    let took = report::seconds(begin.elapsed());
    println!("Every step held; all of it took {took}.");
    Ok(())
}

/// Adds the scenario to what a machine does, with the programs it needs, at their own places.
pub(crate) fn add_scenario(job: &mut Job, flags: &[&str]) {
    let waggle = vm::program("waggle");
    let scenario = vm::program("scenario");
    let program = scenario.display().to_string();
    job.commands.push(GuestCommand {
        variables: vec![
            ("WAGGLE_BIN".to_owned(), waggle.display().to_string()),
            ("SHELL".to_owned(), "/bin/bash".to_owned()),
        ],
        words: std::iter::once(program)
            .chain(flags.iter().map(|&flag| flag.to_owned()))
            .collect(),
    });
    for program in [waggle, scenario] {
        job.programs.push((program.clone(), program));
    }
}
