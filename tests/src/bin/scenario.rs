//! Plays the cluster scenario on this machine, as root: `scenario [--network KIND] [--keep]`.

use std::fs;
use std::io::{Write as _, stdout};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail, ensure};
use tests::cluster::cluster_scenario::{FRONTEND, Scenario, Stage};
use tests::cluster::cluster_state::ManifestFolder;
use tests::cluster::topology::PodNetwork;
use tests::machine::scratch::Scratch;

const USAGE: &str = "\
usage: scenario [--network routed|point-to-point|bridged|bridged-netfilter|vxlan] [--keep]

Plays the cluster scenario: two nodes and their pods as network namespaces, real nginx and curl, the
agent `waggle` on each node (WAGGLE_BIN, else beside this program). Needs root.
  --network   the pod network [default: routed]
  --keep      leave the cluster running afterwards and start a shell in it
";

fn main() -> ExitCode {
    let mut out = stdout();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The story above and this message are one text for its reader.
            drop(writeln!(out, "\nThe scenario failed: {}", explain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// The causes first, the agents' state (the outermost context) last.
fn explain(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = error.chain().map(ToString::to_string).collect();
    if parts.len() > 1 {
        let report = parts.remove(0);
        return format!(
            "{}\n\n{report}\nThe scenario failed: {}",
            parts.join(": "),
            parts.join(": ")
        );
    }
    parts.concat()
}

fn run() -> Result<()> {
    let (network, keep) = arguments()?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces and BPF need root: run it by sudo, or `cargo xtask run` in a VM"
    );
    let mut out = stdout();
    let mut scenario = Scenario::new(network, |_| ManifestFolder::new(), &mut out)?;
    let verdict = scenario.play();
    if keep {
        if let Err(error) = &verdict {
            writeln!(stdout(), "\nThe scenario failed: {}", explain(error))?;
        }
        shell(scenario.stage())?;
    }
    verdict
}

fn arguments() -> Result<(PodNetwork, bool)> {
    let mut network = PodNetwork::Routed;
    let mut keep = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => keep = true,
            "--network" => {
                network = match words.next().as_deref() {
                    Some("routed") => PodNetwork::Routed,
                    Some("point-to-point") => PodNetwork::PointToPoint,
                    Some("bridged") => PodNetwork::Bridged {
                        bridge_netfilter: false,
                    },
                    Some("bridged-netfilter") => PodNetwork::Bridged {
                        bridge_netfilter: true,
                    },
                    Some("vxlan") => PodNetwork::Vxlan,
                    other => bail!("no pod network {}\n{USAGE}", other.unwrap_or("is named")),
                }
            }
            "--help" | "-h" => {
                write!(stdout(), "{USAGE}")?;
                std::process::exit(0);
            }
            other => bail!("{other} is no argument\n{USAGE}"),
        }
    }
    Ok((network, keep))
}

/// A shell with a command for each place of the cluster: `node1 ip route`, `client-2 curl …`,
/// `waggle1 get services`.
fn shell(stage: &Stage<ManifestFolder>) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut out = stdout();
    writeln!(
        out,
        "\nThe cluster stays until this shell ends. In it, run things at any place:"
    )?;
    for (name, namespace) in stage.clients() {
        let short = name.split(' ').next_back().unwrap_or_default();
        let enter = format!("exec nsenter --net={}", namespace.path().display());
        script(&scratch, short, &format!("{enter} \"$@\""))?;
        writeln!(out, "  {short} curl -s http://{FRONTEND}/      ({name})")?;
    }
    let program = tests::cluster::agent_process::program()?;
    for agent in stage.agents() {
        let number = agent.node().number;
        let enter = format!(
            "exec nsenter --net={}",
            agent.node().namespace.path().display()
        );
        let (program, flags) = (program.display(), agent.flags());
        script(
            &scratch,
            &format!("waggle{number}"),
            &format!("{enter} {program} \"$@\" {flags}"),
        )?;
        writeln!(
            out,
            "  waggle{number} get services -o wide      (the agent of node{number})"
        )?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", scratch.path().display());
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    Command::new(shell).env("PATH", path).status()?;
    Ok(())
}

fn script(scratch: &Scratch, name: &str, line: &str) -> Result<()> {
    let path = scratch.write(name, format!("#!/bin/sh\n{line}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
