//! A Deployment behind a dual-stack Service: Kubernetes makes and replaces the pods, the test is their
//! scheduler and kubelet, and API servers go away and come back.
//! Needs the programs of the control plane: `cargo xtask test kubernetes`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::agent_process::Agent;
use tests::cluster::kubernetes_cluster::{KubernetesCluster, RunningPod};
use tests::cluster::service_cluster::wait_for_backends;
use tests::cluster::topology::{Pod, PodNetwork};
use tests::control_plane::ApiServer;
use tests::control_plane::EndpointState::Ready;
use tests::machine::netns::Namespace;
use tests::require_root;
use tests::traffic::client::{curl, requests_to_meet_all, url};
use tests::traffic::load::Load;

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata:
  name: my-service
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIP: 10.103.145.6
  clusterIPs: ['10.103.145.6', 'fd00:10:96::9106']
  selector:
    app: nginx
  ports:
  - port: 80
    targetPort: 80
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: nginx
spec:
  replicas: 3
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx
";

/// What Deployment and Service select by.
const SELECTOR: &str = "app=nginx";

/// New connections per second of each client.
const RATE: u32 = 40;

/// No load lasts longer, whatever becomes of the test.
const LIMIT: Duration = Duration::from_mins(2);

fn frontends() -> [SocketAddr; 2] {
    [
        ([10, 103, 145, 6], 80).into(),
        ([0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x9106], 80).into(),
    ]
}

/// The cluster with the Deployment's pods running and in the endpoints.
struct Deployed {
    cluster: KubernetesCluster,
    /// The first runs on node 1.
    pods: Vec<RunningPod>,
    clients: [Pod; 2],
}

impl Deployed {
    fn new() -> Result<Self> {
        let cluster = KubernetesCluster::start(PodNetwork::Routed)?;
        cluster.control_plane.apply(OBJECTS)?;
        let pods = vec![
            cluster.run_pending_pod(SELECTOR, 1, 2)?,
            cluster.run_pending_pod(SELECTOR, 2, 2)?,
            cluster.run_pending_pod(SELECTOR, 2, 3)?,
        ];
        let clients = [
            cluster.add_pod(1, "client-1", 100)?,
            cluster.add_pod(2, "client-2", 100)?,
        ];
        let deployed = Self {
            cluster,
            pods,
            clients,
        };
        deployed.wait_for_endpoints()?;
        Ok(deployed)
    }

    fn wait_for_endpoints(&self) -> Result<()> {
        let pods = self.pods.iter().map(|running| &running.pod);
        let addresses: Vec<_> = pods
            .flat_map(|pod| [pod.v4.to_string(), pod.v6.to_string()])
            .collect();
        let wanted: Vec<_> = addresses
            .iter()
            .map(|address| (address.as_str(), Ready))
            .collect();
        self.cluster
            .control_plane
            .wait_for_endpoints("my-service", &wanted)
    }

    /// Waits until the agents send new connections to exactly the pods that run.
    fn wait_for_agents(&self, agents: &[Agent]) -> Result<()> {
        let pods = self.pods.iter().map(|running| &running.pod);
        let wanted = pods
            .flat_map(|pod| [pod.socket_v4(80), pod.socket_v6(80)])
            .collect();
        agents
            .iter()
            .try_for_each(|agent| wait_for_backends(agent, "default/my-service", &wanted))
    }

    /// A client pod on each node, and each node itself.
    fn namespaces(&self) -> [&Namespace; 4] {
        let [first, second] = &self.clients;
        let nodes = &self.cluster.network;
        [
            &first.namespace,
            &second.namespace,
            &nodes.node(1).namespace,
            &nodes.node(2).namespace,
        ]
    }

    /// Each client meets every pod of the Service and nobody else, in both families.
    fn check_answers(&self) -> Result<()> {
        let times = requests_to_meet_all(self.pods.len());
        for frontend in frontends() {
            let expected: BTreeSet<_> = self
                .pods
                .iter()
                .map(|running| running.answer(frontend.ip()))
                .collect();
            for namespace in self.namespaces() {
                let client = namespace.name();
                let answers = curl(namespace, &url(frontend), times)
                    .with_context(|| format!("{client} asks {frontend}"))?;
                let met: BTreeSet<_> = answers.into_keys().collect();
                ensure!(
                    met == expected,
                    "{client} met {met:?} at {frontend}, not {expected:?}"
                );
            }
        }
        Ok(())
    }

    /// The first pod is deleted, and what the Deployment makes in its place runs at 10.244.1.8.
    fn exchange_first_pod(&mut self) -> Result<()> {
        let old = self.pods.remove(0);
        let cluster = &self.cluster;
        let new = scope(|threads| {
            let deletion = threads.spawn(|| cluster.delete_pod(old, Duration::from_secs(1)));
            let new = cluster.run_pending_pod(SELECTOR, 1, 8);
            finished(deletion)?;
            new
        })?;
        self.pods.insert(0, new);
        self.wait_for_endpoints()
    }

    fn start_agents(&self, kubeconfig: &Path) -> Result<Vec<Agent>> {
        let source = [OsString::from("--kubeconfig"), kubeconfig.into()];
        let nodes = self.cluster.network.nodes().iter();
        nodes
            .map(|node| Agent::start(node, source.to_vec()))
            .collect()
    }
}

/// What a thread returned; its panic goes on here.
fn finished<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// A failure comes with what the agents say.
fn reported<T>(agents: &[Agent], result: Result<T>) -> Result<T> {
    result.with_context(|| agents.iter().map(Agent::report).collect::<String>())
}

#[test]
fn pod_is_replaced_by_its_deployment_and_no_request_fails() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut deployed = Deployed::new()?;
    let api_server = deployed.cluster.control_plane.api_server();
    let agents = deployed.start_agents(api_server.agent_kubeconfig())?;
    reported(&agents, replace_under_load(&mut deployed, &agents))
}

fn replace_under_load(deployed: &mut Deployed, agents: &[Agent]) -> Result<()> {
    deployed.wait_for_agents(agents)?;
    deployed.check_answers()?;

    let old = deployed.pods[0].pod.name.clone();
    let mut loads = Vec::new();
    for (namespace, frontend) in deployed.namespaces().into_iter().zip(frontends().repeat(2)) {
        loads.push(Load::start(namespace, frontend, RATE, LIMIT)?);
    }
    loads.iter().try_for_each(|load| load.wait_for_more(RATE))?;
    deployed.exchange_first_pod()?;
    deployed.wait_for_agents(agents)?;
    loads
        .iter()
        .try_for_each(|load| load.wait_for_more(2 * RATE))?;

    let new = deployed.pods[0].pod.name.clone();
    for load in loads {
        let report = load.stop()?;
        report.check(3 * usize::try_from(RATE)?)?;
        let answers = report.answers();
        for name in [&old, &new] {
            let is_met = answers
                .keys()
                .any(|answer| answer.starts_with(name.as_str()));
            ensure!(is_met, "{name} was never met: {answers:?}");
        }
    }
    deployed.check_answers()
}

#[test]
fn service_is_served_while_the_api_server_is_away_and_then_as_it_has_become() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut deployed = Deployed::new()?;
    let mut api_server = deployed.cluster.control_plane.another_api_server()?;
    api_server.start()?;
    let agents = deployed.start_agents(api_server.agent_kubeconfig())?;
    reported(
        &agents,
        serve_through_absence(&mut deployed, &mut api_server, &agents),
    )
}

fn serve_through_absence(
    deployed: &mut Deployed,
    api_server: &mut ApiServer,
    agents: &[Agent],
) -> Result<()> {
    deployed.wait_for_agents(agents)?;
    api_server.stop();
    sleep(Duration::from_secs(2));
    deployed
        .check_answers()
        .context("while the API server is away")?;

    // The cluster lives on: the controllers have an API server of their own.
    deployed.exchange_first_pod()?;
    api_server.start()?;
    deployed.wait_for_agents(agents)?;
    deployed
        .check_answers()
        .context("once the API server is back")
}

#[test]
fn agents_that_start_before_their_api_server_serve_once_it_is_up() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let deployed = Deployed::new()?;
    let mut late = deployed.cluster.control_plane.another_api_server()?;
    let kubeconfig = late.agent_kubeconfig().to_owned();
    // Starting an agent includes the wait until it has heard of all there is.
    let agents = scope(|threads| {
        let start = threads.spawn(|| {
            sleep(Duration::from_secs(3));
            late.start()
        });
        let agents = deployed.start_agents(&kubeconfig);
        finished(start)?;
        agents
    })?;
    let result = deployed
        .wait_for_agents(&agents)
        .and_then(|()| deployed.check_answers());
    reported(&agents, result)
}
