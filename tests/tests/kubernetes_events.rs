//! What of a Service cannot be served is told by Events on it, once for all nodes.
//! Needs the programs of the control plane: `cargo xtask test kubernetes`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1 as kubernetes;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use tests::cluster::agent_process::Agent;
use tests::cluster::cluster_state::ClusterState as _;
use tests::cluster::kubernetes_cluster::KubernetesCluster;
use tests::cluster::topology::PodNetwork;
use tests::control_plane::{ControlPlane, poll};
use tests::require_root;

/// How long an Event may take, on a machine that is busy.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// In the order of their making: the second wants what the first has, the third has an address of a family that it has no
/// cluster address of, the fourth an endpoint by name, and the last a node port at which somebody listens.
const SERVICES: [&str; 5] = [
    "{kind: Service, apiVersion: v1, metadata: {name: older}, spec: {externalIPs: [198.51.100.7], ports: [{port: 80}]}}",
    "{kind: Service, apiVersion: v1, metadata: {name: younger}, spec: {externalIPs: [198.51.100.7], ports: [{port: 80}]}}",
    "{kind: Service, apiVersion: v1, metadata: {name: mixed}, spec: {externalIPs: ['2001:db8::7'], ports: [{port: 80}]}}",
    "{kind: Service, apiVersion: v1, metadata: {name: named}, spec: {ports: [{port: 80}]}}",
    "{kind: Service, apiVersion: v1, metadata: {name: door}, spec: {type: NodePort, ports: [{port: 80, nodePort: 30080}]}}",
];

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: named-1, labels: {kubernetes.io/service-name: named}}
addressType: FQDN
endpoints: [{addresses: [pod.example.org]}]
ports: [{name: '', port: 80, protocol: TCP}]
";

/// Of each Service, the Events on it that are ours.
fn told(control_plane: &ControlPlane) -> Result<BTreeMap<String, Vec<Event>>> {
    control_plane.run(|client| async move {
        let events = Api::<Event>::namespaced(client.clone(), "default");
        let services = Api::<kubernetes::Service>::namespaced(client, "default");
        let mut told: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for event in events.list(&ListParams::default()).await?.items {
            if event.reporting_controller.as_deref() != Some("waggle") {
                continue;
            }
            let about = event.regarding.clone().context("about nothing")?;
            let name = about.name.context("about nobody")?;
            let uid = services.get(&name).await?.metadata.uid;
            ensure!(about.uid == uid, "kubectl describe would not find it");
            told.entry(name).or_default().push(event);
        }
        Ok(told)
    })
}

#[test]
fn what_cannot_be_served_is_told_once_for_all_nodes_by_events_on_the_service() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let cluster = KubernetesCluster::start(PodNetwork::Routed)?;
    let control_plane = &cluster.control_plane;
    for service in SERVICES {
        control_plane.apply(service)?;
        // Who is older is told in whole seconds.
        std::thread::sleep(Duration::from_millis(1_100));
    }
    control_plane.apply(SLICE)?;
    let listener = cluster
        .network
        .node(1)
        .namespace
        .run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 30_080))?))?;
    let source = control_plane.agent_arguments();
    let agents = Agent::start_all(cluster.network.nodes(), &source)?;
    let expected = [
        (
            "door",
            "NodePortInUse",
            "on node node1: has node ports at which sockets of this node listen: 0.0.0.0:30080/tcp",
        ),
        (
            "mixed",
            "InvalidService",
            "externalIP 2001:db8::7 is IPv6, and the Service has no IPv6 clusterIP",
        ),
        (
            "named",
            "InvalidEndpoints",
            "EndpointSlice default/named-1: has addressType `FQDN`",
        ),
        (
            "younger",
            "FrontendTaken",
            "wants 198.51.100.7:80/tcp, which default/older has: it is older",
        ),
    ];
    let names = expected.map(|(name, ..)| name);
    let all = poll("every finding is told of", TOLD_WITHIN, || {
        let told = told(control_plane)?;
        Ok((told.len() >= names.len()).then_some(told))
    })?;
    ensure!(all.keys().eq(names), "{all:#?}");
    // Both nodes have found all but one of them, and have told for longer than they wait with it.
    std::thread::sleep(Duration::from_secs(6));
    let all = told(control_plane)?;
    for (name, reason, note) in expected {
        let events = all.get(name).context(name)?;
        ensure!(events.len() == 1, "{events:#?}");
        for event in events {
            ensure!(event.reason.as_deref() == Some(reason), "{event:#?}");
            ensure!(event.type_.as_deref() == Some("Warning"), "{event:#?}");
            let said = event.note.as_deref().unwrap_or_default();
            ensure!(said.starts_with(note), "{said}");
        }
    }
    let [first, second] = agents.as_slice() else {
        anyhow::bail!("two agents");
    };
    let complaint = "Service default/door: has node ports at which sockets of this node listen";
    first.wait_until("status", |text| text.contains(complaint))?;
    ensure!(!second.waggle("status")?.contains(complaint));
    drop(listener);
    // Its sockets are looked at again when node ports change.
    control_plane.apply(
        &SERVICES[4]
            .replace("name: door", "name: other")
            .replace("30080", "30081"),
    )?;
    first.wait_until("status", |text| !text.contains(complaint))?;
    Ok(())
}

#[test]
fn an_agent_that_may_not_write_events_says_so_once_and_serves() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let cluster = KubernetesCluster::start(PodNetwork::Routed)?;
    let control_plane = &cluster.control_plane;
    let rules = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: waggle}
rules:
- {apiGroups: [''], resources: [services, nodes], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
";
    control_plane.apply(rules)?;
    for service in SERVICES {
        control_plane.apply(service)?;
    }
    control_plane.apply(SLICE)?;
    let agent = Agent::start(cluster.network.node(1), control_plane.agent_arguments())?;
    let complaint = "the API server takes no Events from this agent";
    poll("the agent says that it may not", TOLD_WITHIN, || {
        Ok(agent.log().contains(complaint).then_some(()))
    })?;
    // What it would tell next it does not try to.
    control_plane.apply(&SERVICES[2].replace("mixed", "mixed-2"))?;
    agent.wait_until("status", |text| text.contains("default/mixed-2"))?;
    std::thread::sleep(Duration::from_secs(4));
    let log = agent.log();
    ensure!(log.matches(complaint).count() == 1, "{log}");
    ensure!(told(control_plane)?.is_empty());
    agent.wait_until("get services", |text| text.contains("198.51.100.7"))
}
