//! Health checks under a real control plane: what the API server says of the node and of endpoints.
//! Needs the programs of the control plane: `cargo xtask test kubernetes`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tests::cluster::agent_process::Agent;
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::kubernetes_cluster::KubernetesCluster;
use tests::cluster::topology::PodNetwork;
use tests::control_plane::poll;
use tests::require_root;

/// How long a change may take to be seen, on a machine that is busy.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

const DOOR: &str = "
apiVersion: v1
kind: Service
metadata: {name: door}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 32001
  selector: {app: web}
  ports: [{port: 80}]
";

/// The Node with a taint, or without any.
fn node(taint: Option<&str>) -> String {
    let taints = taint.map(|key| format!("{{key: {key}, effect: NoSchedule}}"));
    let taints = taints.unwrap_or_default();
    format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: node1}}, spec: {{taints: [{taints}]}}}}"
    )
}

#[test]
fn a_node_that_is_about_to_leave_is_unhealthy_and_its_services_are_as_healthy_as_before()
-> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let cluster = KubernetesCluster::start(PodNetwork::Routed)?;
    let control_plane = &cluster.control_plane;
    control_plane.apply(DOOR)?;
    control_plane.create_pod("web-1", "node1", &[("app", "web")])?;
    control_plane.report_running("web-1", &["10.244.1.2"])?;
    let first = cluster.network.node(1);
    let _agent = Agent::start(first, control_plane.agent_arguments())?;
    let address = |port: u16| SocketAddr::new(first.v4().into(), port);
    let wait_for = |port: u16, path: &str, wanted: &str| {
        let url = format!("http://{}{path}", address(port));
        let arguments = [
            "-s",
            "-w",
            "%{http_code}",
            "--max-time",
            "5",
            "--noproxy",
            "*",
            &url,
        ];
        poll(&format!("{url} has {wanted}"), SEEN_WITHIN, || {
            // While nobody listens yet there is no answer.
            let answer = cluster.network.outside.output("curl", &arguments);
            let answer = answer.unwrap_or_default();
            Ok(answer.ends_with(wanted).then_some(answer))
        })
    };
    let eligible = |answer: String, is: bool| {
        let wanted = format!("\"nodeEligible\":{is},\"healthy\":true");
        anyhow::ensure!(answer.contains(&wanted), "no {wanted} in {answer}");
        Ok(())
    };
    wait_for(32001, "/", "200")?;
    eligible(wait_for(10256, "/healthz", "200")?, true)?;
    control_plane.apply(&node(Some("ToBeDeletedByClusterAutoscaler")))?;
    eligible(wait_for(10256, "/healthz", "503")?, false)?;
    wait_for(10256, "/livez", "200")?;
    wait_for(32001, "/", "200")?;
    control_plane.apply(&node(Some("example.org/other")))?;
    eligible(wait_for(10256, "/healthz", "200")?, true)?;
    control_plane.report_ready("web-1", false)?;
    wait_for(32001, "/", "503")?;
    control_plane.report_ready("web-1", true)?;
    wait_for(32001, "/", "200")?;
    control_plane.apply(&node(None))?;
    Ok(())
}
