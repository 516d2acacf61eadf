//! What the program says and does when it is given something wrong: a clear message, and nothing
//! that works is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::agent_process::{Agent, program};
use tests::cluster_state::ClusterState as _;
use tests::expect::tcp_meets_exactly;
use tests::now;
use tests::scratch::Scratch;
use tests::service_cluster::{WEB_V4, WEB_V6, address, with_services};
use tests::topology::PodNetwork;

#[test]
fn a_second_agent_on_a_node_is_refused_and_the_first_serves_on() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pod = cluster.add_serving_pod(2, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&pod])?;
        let agent = cluster.agents.first().context("an agent")?;
        let second = agent.second(cluster.state.agent_arguments())?;
        ensure!(!second.status.success(), "a second agent ended well");
        let said = String::from_utf8_lossy(&second.stderr);
        ensure!(
            said.contains("another agent") || said.contains("already"),
            "{said}"
        );
        tcp_meets_exactly(&client.namespace, address(WEB_V4)?, &[&pod])
    })
}

#[test]
fn an_unreadable_manifest_is_named_and_what_was_served_is_served_on() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pod = cluster.add_serving_pod(2, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&pod])?;
        // The good Service is half-written: the last good state stays.
        let good = fs::read_to_string(cluster.state.path().join("service-web.yaml"))?;
        let half = good.get(..good.len() / 2).unwrap_or_default();
        cluster
            .state
            .apply("service-web", &format!("{half}\n  ports: [{{"))?;
        cluster
            .state
            .apply("broken", "apiVersion: v1\nkind: Service\nmetadata: [")?;
        let agent = cluster.agents.first().context("an agent")?;
        for file in ["broken.yaml", "service-web.yaml"] {
            agent.wait_until("status", |text| text.contains(file))?;
        }
        for frontend in [WEB_V4, WEB_V6] {
            tcp_meets_exactly(&client.namespace, address(frontend)?, &[&pod])?;
        }
        // Once they are right nobody complains any more.
        cluster.state.apply("service-web", &good)?;
        cluster.state.remove("broken")?;
        agent.wait_until("status", |text| {
            !text.contains("broken.yaml") && !text.contains("service-web.yaml")
        })?;
        tcp_meets_exactly(&client.namespace, address(WEB_V4)?, &[&pod])
    })
}

#[test]
fn without_root_the_agent_says_what_it_needs() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    // A copy where everybody may run it.
    let scratch = Scratch::new()?;
    let copy = scratch.path().join("waggle");
    fs::copy(program()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let begin = now();
    let output = Command::new(&copy)
        .args(["run", "--manifests"])
        .arg(scratch.path())
        .arg("--run-dir")
        .arg(scratch.path().join("run"))
        .uid(65_534)
        .gid(65_534)
        .output()?;
    ensure!(begin.elapsed() < Duration::from_secs(20));
    ensure!(!output.status.success(), "it ran without root");
    let said = String::from_utf8_lossy(&output.stderr);
    let words = ["root", "CAP_BPF", "privilege"];
    ensure!(words.iter().any(|word| said.contains(word)), "{said}");
    Ok(())
}

#[test]
fn a_folder_that_is_not_there_is_named() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let node = cluster.cluster.node(1);
        let source = vec!["--manifests".into(), "/nowhere/at-all".into()];
        let error = Agent::start(node, source)
            .err()
            .context("the agent started")?;
        let said = format!("{error:#}");
        ensure!(said.contains("/nowhere/at-all"), "{said}");
        Ok(())
    })
}
