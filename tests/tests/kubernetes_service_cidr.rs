//! `ServiceCIDR`s say where Services get their addresses: what is for one that no Service has is dropped, as long as the
//! object is there and the agent may read it.
//! Needs the programs of the control plane: `cargo xtask test kubernetes`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::Value;
use tests::cluster::agent_process::Agent;
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::kubernetes_cluster::KubernetesCluster;
use tests::cluster::topology::PodNetwork;
use tests::control_plane::{ControlPlane, poll};
use tests::require_root;
use tests::traffic::client::{HttpFailure, http_get};

/// How long the agent may take to follow, on a machine that is busy; and to ask again what it was not allowed to read.
const FOLLOWS_WITHIN: Duration = Duration::from_mins(1);
/// Who hears nothing waits so long.
const SILENCE: Duration = Duration::from_millis(1500);

const MORE: &str = "
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: more}
spec: {cidrs: [10.200.0.0/24, 'fd00:10:200::/112']}
";
/// Of the API server's own ServiceCIDR, of the flag of the second test, and of [`MORE`].
const OF_THE_FIRST: [&str; 2] = ["10.96.0.99:80", "[fd00:10:96::99]:80"];
const OF_THE_FLAG: [&str; 2] = ["10.201.0.99:80", "[fd00:10:201::99]:80"];
const OF_MORE: [&str; 2] = ["10.200.0.99:80", "[fd00:10:200::99]:80"];

fn delete_more(control_plane: &ControlPlane) -> Result<()> {
    control_plane.run(|client| async move {
        let cidrs = Api::<ServiceCIDR>::all(client);
        cidrs.delete("more", &DeleteParams::default()).await?;
        Ok(())
    })
}

/// Whether the maps say that what a pod sends to each of these addresses is dropped.
fn are_dropped(agent: &Agent, addresses: [&str; 2]) -> Result<[bool; 2]> {
    let mut dropped = [false; 2];
    for (dropped, to) in dropped.iter_mut().zip(addresses) {
        let from = if to.starts_with('[') {
            "[fd00:10:244:1::9]"
        } else {
            "10.244.1.9"
        };
        let question = format!("trace --in pod --proto tcp --src {from}:40000 --dst {to} -o json");
        let answer: Value = serde_json::from_str(&agent.waggle(&question)?)?;
        *dropped = answer["reason"] == "no_such_service";
    }
    Ok(dropped)
}

fn wait_until_dropped(agent: &Agent, addresses: [&str; 2], wanted: bool) -> Result<()> {
    let what = format!("{addresses:?} dropped: {wanted}");
    poll(&what, FOLLOWS_WITHIN, || {
        let is_as_wanted = are_dropped(agent, addresses)? == [wanted; 2];
        Ok(is_as_wanted.then_some(()))
    })
}

#[test]
fn a_service_cidr_that_comes_and_goes_takes_effect_at_once() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let cluster = KubernetesCluster::start(PodNetwork::Routed)?;
    let control_plane = &cluster.control_plane;
    let node = cluster.network.node(1);
    let agent = Agent::start(node, control_plane.agent_arguments())?;
    // What happens to real clients: a pod's packet, and the call of a process of the node.
    let client = cluster.add_pod(1, "client", 9)?;
    let meets = |to: &str| -> Result<(HttpFailure, String)> {
        let to: SocketAddr = to.parse()?;
        let ask = || Ok(http_get(to, SILENCE).err());
        let of_pod = client.namespace.run(ask)?;
        let of_node = node.namespace.run(ask)?;
        let nobody = || anyhow::anyhow!("somebody answers at {to}");
        let of_node = of_node.ok_or_else(nobody)?.to_string();
        Ok((of_pod.ok_or_else(nobody)?, of_node))
    };
    wait_until_dropped(&agent, OF_THE_FIRST, true)?;
    let dropped = are_dropped(&agent, OF_MORE)?;
    ensure!(dropped == [false; 2], "dropped before it was made");
    let before = OF_MORE.map(meets);

    control_plane.apply(MORE)?;
    wait_until_dropped(&agent, OF_MORE, true)?;
    for to in OF_MORE {
        let (of_pod, of_node) = meets(to)?;
        ensure!(
            of_pod == HttpFailure::TimedOut("connect"),
            "{to}: {of_pod:?}"
        );
        ensure!(of_node.contains("not permitted"), "{to}: {of_node}");
    }

    delete_more(control_plane)?;
    wait_until_dropped(&agent, OF_MORE, false)?;
    for (to, before) in OF_MORE.into_iter().zip(before) {
        let (before, after) = (before?, meets(to)?);
        ensure!(!before.1.contains("not permitted"), "{to}: {before:?}");
        ensure!(after == before, "{to}: {after:?} but before {before:?}");
    }
    ensure!(are_dropped(&agent, OF_THE_FIRST)? == [true; 2]);
    let status = agent.waggle("status")?;
    ensure!(status.contains("service CIDRs: listed"), "{status}");
    ensure!(!status.contains("Warnings"), "{status}");
    Ok(())
}

#[test]
fn who_may_not_read_service_cidrs_goes_by_the_flag_until_rights_are_given() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let cluster = KubernetesCluster::start(PodNetwork::Routed)?;
    let control_plane = &cluster.control_plane;
    let rules = |more: &str| {
        format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: waggle}}
rules:
- {{apiGroups: [''], resources: [services, nodes], verbs: [get, list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}}
{more}"
        )
    };
    control_plane.apply(&rules(""))?;
    control_plane.apply(MORE)?;
    let flag = "--service-cidr=10.201.0.0/24,fd00:10:201::/112".into();
    let arguments = control_plane.agent_arguments();
    let agent = Agent::start_with(cluster.network.node(1), arguments, vec![flag])?;
    let complaint = "does not let the agent read service CIDRs";
    agent.wait_until("status", |text| text.contains(complaint))?;
    ensure!(are_dropped(&agent, OF_THE_FLAG)? == [true; 2]);
    ensure!(are_dropped(&agent, OF_MORE)? == [false; 2]);

    control_plane.apply(&rules(
        "- {apiGroups: [networking.k8s.io], resources: [servicecidrs], verbs: [get, list, watch]}\n",
    ))?;
    wait_until_dropped(&agent, OF_MORE, true)?;
    ensure!(are_dropped(&agent, OF_THE_FLAG)? == [true; 2]);
    agent.wait_until("status", |text| !text.contains(complaint))?;
    let log = agent.log();
    ensure!(log.matches(complaint).count() == 1, "{log}");
    Ok(())
}
