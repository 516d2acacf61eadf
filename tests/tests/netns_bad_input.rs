//! What the program says and does when it is given something wrong: a clear message, and nothing
//! that works is lost.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::agent_process::Agent;
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::expect::tcp_meets_exactly;
use tests::cluster::service_cluster::{WEB_V4, WEB_V6, address, with_services};
use tests::cluster::topology::PodNetwork;
use tests::machine::scratch::unique_tag;

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
fn who_wants_what_an_older_service_has_is_named_once_in_the_log_and_takes_over_when_that_goes()
-> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let pod = cluster.add_serving_pod(1, "pod", 2)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        let web = cluster.state.path().join("service-web.yaml");
        let older = fs::read_to_string(web)?.replace(
            "name: web\n",
            "name: older\n  creationTimestamp: \"2026-01-01T00:00:00Z\"\n",
        );
        cluster.state.apply("service-older", &older)?;
        cluster.start_agents(&[&pod])?;
        let agent = cluster.agents.first().context("an agent")?;
        let complaint = "Service default/web: wants 10.96.0.80:53/udp, 10.96.0.80:80/tcp";
        agent.wait_until("status", |text| text.contains(complaint))?;
        agent.wait_until("get services", |text| {
            text.contains("taken by default/older")
        })?;
        // Its endpoints change, which is no news of the dispute.
        let other = cluster.add_serving_pod(2, "other", 2)?;
        cluster.wait_for(&[&pod, &other])?;
        let agent = cluster.agents.first().context("an agent")?;
        let log = agent.log();
        ensure!(log.matches(complaint).count() == 1, "{log}");
        cluster.state.remove("service-older")?;
        agent.wait_until("status", |text| !text.contains(complaint))?;
        tcp_meets_exactly(&client.namespace, address(WEB_V4)?, &[&pod, &other])
    })
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

#[test]
fn a_start_with_a_wrong_path_leaves_nothing_in_the_kernel() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let node = cluster.cluster.node(1);
        let manifests = cluster.state.agent_arguments();
        let file = cluster.state.path().join("service-web.yaml");
        let wrong: [Vec<OsString>; 4] = [
            vec!["--manifests".into(), file.into()],
            vec!["--kubeconfig".into(), "/nowhere/kubeconfig".into()],
            [
                manifests.clone(),
                vec!["--cgroup-root".into(), "/proc".into()],
            ]
            .concat(),
            [manifests, vec!["--log".into(), "loud".into()]].concat(),
        ];
        for arguments in wrong {
            let root = Path::new("/sys/fs/bpf").join(unique_tag());
            let mut command = node
                .namespace
                .command(tests::cluster::agent_process::program()?);
            command
                .arg("run")
                .args(&arguments)
                .arg("--bpf-root")
                .arg(&root);
            let output = command.output()?;
            ensure!(!output.status.success(), "{arguments:?} were taken");
            let said = String::from_utf8_lossy(&output.stderr);
            let named = arguments.last().context("arguments")?.to_string_lossy();
            ensure!(said.contains(&*named), "{arguments:?}: {said}");
            ensure!(!root.exists(), "{arguments:?} left {}", root.display());
        }
        Ok(())
    })
}
