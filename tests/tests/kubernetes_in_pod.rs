//! The agent as its DaemonSet runs it: with the ServiceAccount of its pod, and with nothing else.
//! Needs the programs of the control plane: `cargo xtask test kubernetes`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::net::TcpStream;

use anyhow::{Result, anyhow, ensure};
use tests::cluster::agent_process::Agent;
use tests::cluster::kubernetes_cluster::KubernetesCluster;
use tests::cluster::service_cluster::wait_for_backends;
use tests::cluster::topology::PodNetwork;
use tests::machine::scratch::Scratch;
use tests::require_root;

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.80
  selector: {app: web}
  ports:
  - port: 80
";

/// What the agent says when it has to go through its own translation to be told of Services.
const WARNING: &str = "the ClusterIP that this agent translates itself";

/// A cluster with a Service of one pod, and what a kubelet would mount into the agent's pod.
fn cluster() -> Result<(KubernetesCluster, Scratch)> {
    let cluster = KubernetesCluster::start(PodNetwork::Routed)?;
    cluster.control_plane.apply(SERVICE)?;
    let (node, pod) = ("node1", "web-1");
    cluster
        .control_plane
        .create_pod(pod, node, &[("app", "web")])?;
    cluster.control_plane.report_running(pod, &["10.244.1.2"])?;
    let var_run = Scratch::new()?;
    cluster
        .control_plane
        .mount_service_account(var_run.path())?;
    Ok((cluster, var_run))
}

/// Waits until the agent has heard of the Service's pod; gives what it says of itself then.
fn informed(agent: &Agent) -> Result<String> {
    let backend: SocketAddr = ([10, 244, 1, 2], 80).into();
    wait_for_backends(agent, "default/web", &BTreeSet::from([backend]))?;
    agent.waggle("status")
}

#[test]
fn agent_in_a_pod_uses_its_service_account_and_warns_of_the_cluster_ip() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let (cluster, var_run) = cluster()?;
    let api_server = cluster.control_plane.api_server().address();
    let node = cluster.network.node(1);
    let agent = Agent::start_in_pod(node, var_run.path(), api_server, Vec::new())?;
    let status = informed(&agent)?;
    for part in [WARNING, &api_server.to_string(), "--api-server"] {
        ensure!(status.contains(part), "does not say `{part}`:\n{status}");
    }
    Ok(())
}

#[test]
fn agent_in_a_pod_needs_no_service_to_reach_a_given_api_server() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let (cluster, var_run) = cluster()?;
    let given = format!("https://{}", cluster.control_plane.api_server().address());
    // Nobody answers where the environment points to, as before the first Service is translated.
    let cluster_ip = ([10, 96, 0, 1], 443).into();
    let flags: Vec<OsString> = vec!["--api-server".into(), given.into()];
    let agent = Agent::start_in_pod(cluster.network.node(1), var_run.path(), cluster_ip, flags)?;
    let status = informed(&agent)?;
    ensure!(!status.contains(WARNING), "{status}");
    Ok(())
}

#[test]
fn agent_reaches_its_api_server_past_a_service_at_the_same_address() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let (cluster, var_run) = cluster()?;
    let control_plane = &cluster.control_plane;
    let address = control_plane.api_server().address();
    let flags: Vec<OsString> = vec!["--api-server".into(), format!("https://{address}").into()];
    let mut agent = Agent::start_in_pod(cluster.network.node(1), var_run.path(), address, flags)?;
    informed(&agent)?;
    // The Service has no endpoints: connections to the API server's address are refused.
    control_plane.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: thief, namespace: default}}
spec:
  externalIPs: ['{}']
  ports: [{{port: {}}}]
",
        address.ip(),
        address.port()
    ))?;
    let taken = |text: &str| text.contains(&format!("{} ", address.ip()));
    agent.wait_until("get services", taken)?;
    let node = &cluster.network.node(1).namespace;
    let refused = node.run(|| Ok(TcpStream::connect(address).is_err()))?;
    ensure!(refused, "the Service does not have the address");
    agent.terminate()?;
    agent.launch()?;
    control_plane.delete_service("thief")?;
    agent
        .wait_until("get services", |text| !taken(text))
        .map_err(|error| anyhow!("{error:#}\n{}", agent.report()))
}

#[test]
fn agent_without_a_service_account_says_what_else_it_can_be_given() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let cluster = tests::cluster::topology::Cluster::new(PodNetwork::Routed)?;
    let empty = Scratch::new()?;
    let api_server = ([192, 0, 2, 1], 6443).into();
    let started = Agent::start_in_pod(cluster.node(1), empty.path(), api_server, Vec::new());
    let said = started
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    for part in ["no service account", "--kubeconfig", "--manifests"] {
        ensure!(said.contains(part), "does not say `{part}`: {said}");
    }
    Ok(())
}
