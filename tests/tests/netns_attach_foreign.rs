//! Others have programs on the same devices: ours stand where they must, and nobody's are touched.

use anyhow::{Result, ensure};
use lb_common::maps::LAYOUT_VERSION;
use serde_json::Value;
use tests::cluster::agent_without_services::{LoneAgent, attached, attached_by_tcx, has_tcx};
use tests::cluster::expect::{tcp_meets_exactly, udp_meets_exactly};
use tests::cluster::service_cluster::{UDP_V4, WEB_V4, WEB_V6, address, with_services};
use tests::cluster::topology::PodNetwork;
use tests::machine::require::optional;

/// A filter of somebody else's: one classic BPF instruction that matches nothing.
const FOREIGN: &[&str] = &[
    "prio",
    "10",
    "bpf",
    "bytecode",
    "1,6 0 0 0",
    "flowid",
    "1:1",
];

fn tc(lone: &LoneAgent, arguments: &[&str]) -> Result<String> {
    lone.namespace.output("tc", arguments)
}

fn add_foreign(lone: &LoneAgent, device: &str, side: &str) -> Result<()> {
    tc(
        lone,
        &[&["filter", "add", "dev", device, side], FOREIGN].concat(),
    )?;
    Ok(())
}

/// How the egress program hangs on the device, and its preference.
fn egress(device: Option<&Value>) -> (String, u64) {
    let hooks = device.and_then(|device| device["hooks"].as_array().cloned());
    let hooks = hooks.unwrap_or_default();
    let hook = hooks.iter().find(|hook| hook["direction"] == "egress");
    let hook = hook.cloned().unwrap_or_default();
    (
        hook["how"].as_str().unwrap_or("no").to_owned(),
        hook["preference"].as_u64().unwrap_or_default(),
    )
}

#[test]
fn beside_foreign_filters_the_egress_program_runs_last() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    if !optional(has_tcx(), "no TCX here: everything is attached by clsact") {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    lone.namespace.ip("link add d0 type veth peer name d1")?;
    lone.wait_attached("d0")?;
    tc(&lone, &["qdisc", "add", "dev", "d0", "clsact"])?;
    add_foreign(&lone, "d0", "egress")?;
    lone.wait_for("d0", |device| {
        egress(device) == ("clsact".to_owned(), 65_535)
    })?;
    ensure!(
        attached(&lone.namespace, "d0")? == [1, 0],
        "not moved from TCX"
    );
    let filters = tc(&lone, &["filter", "show", "dev", "d0", "egress"])?;
    let (foreign, ours) = (filters.find("pref 10 "), filters.find("waggle_egress"));
    ensure!(foreign.is_some() && foreign < ours, "{filters}");
    let status = lone.agent.waggle("status")?;
    ensure!(
        status.contains("d0 egress: bpf") || status.contains("d0 egress: "),
        "{status}"
    );
    // When the others leave, ours goes back, and our own filter does not count as another's.
    tc(
        &lone,
        &["filter", "del", "dev", "d0", "egress", "prio", "10"],
    )?;
    lone.wait_for("d0", |device| egress(device).0 == "tcx")?;
    let filters = tc(&lone, &["filter", "show", "dev", "d0", "egress"])?;
    ensure!(!filters.contains("waggle"), "{filters}");
    let qdiscs = tc(&lone, &["qdisc", "show", "dev", "d0"])?;
    ensure!(
        qdiscs.contains("clsact"),
        "a foreign qdisc was removed: {qdiscs}"
    );
    Ok(())
}

#[test]
fn a_foreign_filter_on_ingress_changes_nothing() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let lone = LoneAgent::start(&[])?;
    lone.namespace.ip("link add d0 type veth peer name d1")?;
    lone.wait_attached("d0")?;
    tc(&lone, &["qdisc", "add", "dev", "d0", "clsact"])?;
    add_foreign(&lone, "d0", "ingress")?;
    lone.wait_for("d0", |device| {
        device.is_some_and(|device| device["hooks"][0]["foreign"][0]["how"] == "clsact")
    })?;
    ensure!(attached(&lone.namespace, "d0")? == [1, 1]);
    Ok(())
}

#[test]
fn cleanup_beside_foreign_filters_leaves_theirs_and_takes_ours() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut lone = LoneAgent::start(&[])?;
    lone.namespace.ip("link add d0 type veth peer name d1")?;
    tc(&lone, &["qdisc", "add", "dev", "d0", "clsact"])?;
    add_foreign(&lone, "d0", "egress")?;
    lone.wait_for("d0", |device| egress(device).0 == "clsact")?;
    lone.agent.terminate()?;
    let said = lone.agent.waggle("cleanup")?;
    ensure!(said.contains("d0"), "{said}");
    let filters = tc(&lone, &["filter", "show", "dev", "d0", "egress"])?;
    ensure!(
        filters.contains("pref 10 ") && !filters.contains("waggle"),
        "{filters}"
    );
    Ok(())
}

#[test]
fn cleanup_leaves_nothing_and_a_second_one_finds_nothing() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut lone = LoneAgent::start(&[])?;
    lone.wait_attached("eth0")?;
    let while_it_runs = lone.agent.waggle("cleanup").unwrap_err().to_string();
    ensure!(
        while_it_runs.contains("while an agent runs"),
        "{while_it_runs}"
    );
    ensure!(attached(&lone.namespace, "eth0")? == [1, 1]);
    lone.agent.terminate()?;
    let root = lone.agent.bpf_root().to_owned();
    ensure!(
        root.join(format!("v{LAYOUT_VERSION}/FRONTENDS_V4"))
            .exists()
            && root.join("links/connect4").exists()
    );
    let said = lone.agent.waggle("cleanup")?;
    for part in ["eth0", "connect4", "FRONTENDS_V4"] {
        ensure!(
            said.contains(part),
            "not said to be removed: {part}\n{said}"
        );
    }
    ensure!(!root.exists(), "{} is left", root.display());
    ensure!(attached(&lone.namespace, "eth0")? == [0, 0]);
    let again = lone.agent.waggle("cleanup")?;
    ensure!(again.contains("nothing"), "{again}");
    Ok(())
}

/// The filters' lines of `tc filter show` that are ours.
fn ours(lone: &LoneAgent, side: &str) -> Result<Vec<String>> {
    let shown = tc(lone, &["filter", "show", "dev", "d0", side])?;
    let lines = shown.lines().filter(|line| line.contains("waggle_"));
    Ok(lines.map(str::to_owned).collect())
}

#[test]
fn by_clsact_alone_restart_replaces_the_filters_and_cleanup_takes_the_qdisc() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut lone = LoneAgent::start(&["--attach", "clsact"])?;
    lone.namespace.ip("link add d0 type veth peer name d1")?;
    lone.wait_for("d0", |device| {
        egress(device) == ("clsact".to_owned(), 65_535)
    })?;
    ensure!(attached_by_tcx(&lone.namespace, "d0")? == [0, 0]);
    let (before, filter) = (ours(&lone, "ingress")?, ours(&lone, "egress")?);
    ensure!(
        before.len() == 1 && filter.len() == 1,
        "{before:?} {filter:?}"
    );
    ensure!(
        before.iter().all(|line| line.contains("pref 1 ")),
        "{before:?}"
    );
    lone.agent.kill()?;
    ensure!(
        ours(&lone, "ingress")? == before,
        "a crash took the filter along"
    );
    lone.agent.launch()?;
    let after = ours(&lone, "ingress")?;
    ensure!(after.len() == 1 && after != before, "{before:?}\n{after:?}");
    lone.agent.terminate()?;
    lone.agent.cleanup()?;
    let qdiscs = tc(&lone, &["qdisc", "show", "dev", "d0"])?;
    ensure!(!qdiscs.contains("clsact"), "{qdiscs}");
    Ok(())
}

#[test]
fn a_restart_leaves_one_filter_of_ours_when_a_better_preference_has_become_free() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    let mut lone = LoneAgent::start(&["--attach", "clsact"])?;
    lone.agent.terminate()?;
    // A filter for another protocol has the whole preference that ours would take.
    lone.namespace.ip("link add d0 type veth peer name d1")?;
    tc(&lone, &["qdisc", "add", "dev", "d0", "clsact"])?;
    let place = ["filter", "add", "dev", "d0", "ingress", "protocol", "ip"];
    tc(&lone, &[&place[..], &["prio", "1"], &FOREIGN[2..]].concat())?;
    lone.agent.launch()?;
    let before = ours(&lone, "ingress")?;
    ensure!(
        before.len() == 1 && before.iter().all(|line| line.contains("pref 2 ")),
        "{before:?}"
    );
    lone.agent.kill()?;
    tc(
        &lone,
        &["filter", "del", "dev", "d0", "ingress", "prio", "1"],
    )?;
    lone.agent.launch()?;
    let after = ours(&lone, "ingress")?;
    ensure!(after.len() == 1 && after != before, "{before:?}\n{after:?}");
    Ok(())
}

#[test]
fn services_answer_by_clsact_as_by_tcx() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let pods = [&near, &far];
        cluster.start_agents_with(&pods, &["--attach", "clsact"])?;
        for frontend in [WEB_V4, WEB_V6] {
            tcp_meets_exactly(&client.namespace, address(frontend)?, &pods)?;
        }
        udp_meets_exactly(&client.namespace, address(UDP_V4)?, &pods)?;
        Ok(())
    })
}
