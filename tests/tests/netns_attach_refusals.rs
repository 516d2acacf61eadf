//! What the agent refuses, and how it says so; and how quickly it ends.
#![expect(clippy::print_stdout, reason = "measured times are shown")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_common::maps::LAYOUT_VERSION;
use serde_json::Value;
use tests::cluster::agent_process::program;
use tests::cluster::agent_without_services::{LoneAgent, attached};
use tests::machine::scratch::Scratch;
use tests::now;

/// `waggle <words>`, run to its end in this test's own namespace.
fn waggle(words: &str, scratch: &Scratch) -> Result<Output> {
    let mut command = Command::new(program()?);
    command.args(words.split_whitespace());
    let run_dir = scratch.path().join("run");
    Ok(command.arg("--run-dir").arg(run_dir).output()?)
}

fn refused(output: &Output, status: i32, parts: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(status),
        "{}: {said}",
        output.status
    );
    for part in parts {
        ensure!(said.contains(part), "does not say `{part}`: {said}");
    }
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

#[test]
fn a_second_agent_is_told_of_the_first_which_keeps_its_devices() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    let status: Value = serde_json::from_str(&lone.agent.waggle("status -o json")?)?;
    let pid = format!("pid {}", status["agent"]["pid"]);
    let scratch = Scratch::new()?;
    let manifests = scratch.path().display().to_string();
    // Both folders are the first one's, or only the BPF root is.
    let other = format!(
        "--bpf-root {} --run-dir {manifests}/run",
        lone.agent.bpf_root().display()
    );
    for flags in [lone.agent.flags(), other] {
        let mut second = lone.namespace.command(program()?);
        second.args(["run", "--manifests", &manifests]);
        let output = second.args(flags.split_whitespace()).output()?;
        refused(&output, 1, &["another agent", &pid])?;
    }
    lone.agent.waggle("status")?;
    ensure!(attached(&lone.namespace, "eth0")? == [1, 1]);
    Ok(())
}

#[test]
fn without_root_the_agent_says_what_it_needs() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    // A copy that anybody may run, wherever the build's folder is.
    let copy = scratch.path().join("waggle");
    std::fs::copy(program()?, &copy)?;
    for path in [scratch.path(), copy.as_path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    for words in ["run --manifests /tmp", "cleanup"] {
        let mut command = Command::new(&copy);
        command.args(words.split_whitespace());
        command.arg("--run-dir").arg(scratch.path().join("run"));
        let output = command.uid(65_534).gid(65_534).output()?;
        refused(&output, 1, &["needs root", "CAP_NET_ADMIN"])?;
    }
    Ok(())
}

#[test]
fn a_kernel_without_btf_is_refused() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let output = waggle("run --manifests /tmp --btf /nowhere/vmlinux", &scratch)?;
    refused(
        &output,
        1,
        &["no BTF", "/nowhere/vmlinux", "CONFIG_DEBUG_INFO_BTF"],
    )
}

#[test]
fn maps_of_another_size_are_refused_and_left_alone() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut lone = LoneAgent::start(&[])?;
    lone.agent.terminate()?;
    let scratch = Scratch::new()?;
    let mut other = lone.namespace.command(program()?);
    other.args(["run", "--manifests"]).arg(scratch.path());
    other.args(["--max-flow-entries", "5000"]);
    let output = other.args(lone.agent.flags().split_whitespace()).output()?;
    let parts = ["FLOWS_V4", "262144", "5000", "waggle cleanup"];
    refused(&output, 1, &parts)?;
    ensure!(
        lone.agent
            .bpf_root()
            .join(format!("v{LAYOUT_VERSION}/FLOWS_V4"))
            .exists()
    );
    lone.agent.launch()
}

#[test]
fn a_wrong_command_line_ends_with_status_2() -> Result<()> {
    let scratch = Scratch::new()?;
    for words in [
        "get nothing",
        "run --devices a,,b",
        "walk",
        "run --gone-grace 5",
    ] {
        refused(&waggle(words, &scratch)?, 2, &["For more information"])?;
    }
    Ok(())
}

#[test]
fn the_agent_ends_within_a_second_and_leaves_the_datapath() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut lone = LoneAgent::start(&[])?;
    let begin = now();
    lone.agent.terminate()?;
    let took = begin.elapsed();
    println!("SIGTERM to the end: {took:?}");
    // A second is promised; the machine may be busy with other tests.
    ensure!(took < Duration::from_secs(5), "{took:?}");
    ensure!(attached(&lone.namespace, "eth0")? == [1, 1]);
    let output = lone.agent.waggle("status").unwrap_err().to_string();
    ensure!(
        output.contains("no agent runs here") && output.contains("connect4"),
        "{output}"
    );
    Ok(())
}

#[test]
fn status_tells_of_a_node_that_does_not_forward() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    lone.namespace.sysctl("net/ipv4/ip_forward", "0")?;
    lone.namespace.nft(
        "table inet fence { chain toll { type filter hook forward priority 0; policy drop; }\n}",
    )?;
    let status = lone.agent.waggle("status")?;
    for part in [
        "net.ipv4.ip_forward: is 0",
        "nftables chain fence toll",
        "policy drop",
    ] {
        ensure!(status.contains(part), "does not say `{part}`:\n{status}");
    }
    lone.namespace.sysctl("net/ipv4/ip_forward", "1")?;
    lone.namespace.nft("delete table inet fence")?;
    let status = lone.agent.waggle("status")?;
    ensure!(
        !status.contains("ip_forward") && !status.contains("fence"),
        "{status}"
    );
    Ok(())
}
