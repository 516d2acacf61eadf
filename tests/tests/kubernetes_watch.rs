//! The agent follows a real API server, through its absences too. Maps are in memory here: what is
//! asked is whether it knows what it should.
//! Needs the programs of the control plane: `cargo xtask test kubernetes`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_userspace::agent::{self, Agent, Event, Observer, Report, Settings, Source, View};
use lb_userspace::maps::fake::FakeMaps;
use lb_userspace::model::Place;
use lb_userspace::watch::kubernetes::{Access, watch};
use tests::control_plane::{ControlPlane, poll};
use tests::require_root;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

/// How long the agent may take to know what has changed, and to find an API server that is back: it
/// asks with growing pauses.
const KNOWN_WITHIN: Duration = Duration::from_secs(40);

/// Longer than anything the agent does by itself takes.
const A_WHILE: Duration = Duration::from_secs(2);

/// An agent without a kernel.
struct AgentOnPaper {
    events: mpsc::Sender<Event>,
    _runtime: Runtime,
}

struct Silent;

impl Observer for Silent {
    fn applied(&mut self, _: &Report) {}
}

impl AgentOnPaper {
    fn start(kubeconfig: &Path) -> Result<Self> {
        Self::start_with(kubeconfig, None)
    }

    /// `api_server` is the address given by `--api-server`.
    fn start_with(kubeconfig: &Path, api_server: Option<SocketAddr>) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (events, received) = mpsc::channel(1024);
        let settings = Settings {
            place: Place::default(),
            sources: BTreeSet::from([Source::Services, Source::EndpointSlices]),
            collect: Duration::from_millis(5),
            region_rest: Duration::from_secs(2),
            gone_grace: Duration::from_secs(30),
            backoff: (Duration::from_millis(50), Duration::from_secs(10)),
            list_timeout: Duration::from_secs(15),
            node_device: None,
        };
        let agent = Agent::new(settings, FakeMaps::default())?;
        let access = Access {
            kubeconfig: Some(kubeconfig.to_owned()),
            api_server: api_server.map(|address| format!("https://{address}")),
            node_name: "node1".into(),
        };
        runtime.spawn(agent::run(agent, received, Silent));
        runtime.spawn(watch(access, events.clone()));
        Ok(Self {
            events,
            _runtime: runtime,
        })
    }

    fn view(&self) -> Result<View> {
        let (send, receive) = oneshot::channel();
        self.events
            .blocking_send(Event::View(send))
            .context("the agent has ended")?;
        Ok(receive.blocking_recv()?)
    }

    /// `service/port address` of every backend in a slot; `service/port` alone if it has none.
    fn known(&self) -> Result<BTreeSet<String>> {
        let view = self.view()?;
        let mut known = BTreeSet::new();
        for service in view
            .services
            .iter()
            .filter(|service| service.name != "kubernetes")
        {
            let of_service = |address| format!("{} {address}", service.name);
            let backends = view.backends.iter().filter(|backend| {
                backend.family == service.family && service.backends.contains(&backend.id)
            });
            let addresses: Vec<_> = backends
                .map(|backend| of_service(backend.address))
                .collect();
            if addresses.is_empty() {
                known.insert(service.name.clone());
            }
            known.extend(addresses);
        }
        Ok(known)
    }

    fn wait_for(&self, wanted: &[&str]) -> Result<()> {
        let wanted: BTreeSet<_> = wanted.iter().map(|line| (*line).to_owned()).collect();
        let mut known = BTreeSet::new();
        let what = format!("the agent knows {wanted:?}");
        let result = poll(&what, KNOWN_WITHIN, || {
            known = self.known()?;
            Ok((known == wanted).then_some(()))
        });
        result.with_context(|| format!("the agent knows {known:?}"))
    }
}

fn service(name: &str, cluster_ip: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{
            clusterIP: {cluster_ip}, selector: {{app: {name}}}, ports: [{{port: 80}}]}}}}"
    )
}

fn run_pod(control_plane: &ControlPlane, app: &str, name: &str, address: &str) -> Result<()> {
    control_plane.create_pod(name, "node1", &[("app", app)])?;
    control_plane.report_running(name, &[address])
}

/// Three Services; of `steady` and `shrinking` there are pods.
fn populated() -> Result<ControlPlane> {
    let control_plane = ControlPlane::start()?;
    control_plane.create_node("node1", &["172.18.0.11"])?;
    for (name, cluster_ip) in [
        ("steady", "10.96.0.11"),
        ("shrinking", "10.96.0.12"),
        ("vanishing", "10.96.0.13"),
    ] {
        control_plane.apply(&service(name, cluster_ip))?;
    }
    run_pod(&control_plane, "steady", "steady-1", "10.244.1.1")?;
    run_pod(&control_plane, "shrinking", "shrinking-1", "10.244.1.2")?;
    run_pod(&control_plane, "shrinking", "shrinking-2", "10.244.1.3")?;
    Ok(control_plane)
}

const POPULATION: &[&str] = &[
    "shrinking 10.244.1.2:80",
    "shrinking 10.244.1.3:80",
    "steady 10.244.1.1:80",
    "vanishing",
];

#[test]
fn agent_follows_services_and_pods() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let control_plane = populated()?;
    let agent = AgentOnPaper::start(control_plane.api_server().agent_kubeconfig())?;
    agent.wait_for(POPULATION)?;

    run_pod(&control_plane, "vanishing", "vanishing-1", "10.244.1.4")?;
    control_plane.terminate_pod("shrinking-1")?;
    agent.wait_for(&[
        "shrinking 10.244.1.3:80",
        "steady 10.244.1.1:80",
        "vanishing 10.244.1.4:80",
    ])?;
    control_plane.delete_service("vanishing")?;
    agent.wait_for(&["shrinking 10.244.1.3:80", "steady 10.244.1.1:80"])?;
    let warnings = agent.view()?.warnings;
    ensure!(warnings.is_empty(), "{warnings:?}");
    Ok(())
}

#[test]
fn null_in_a_field_that_is_not_read_is_ignored_by_starting_and_running_agents() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let control_plane = populated()?;
    let running = AgentOnPaper::start(control_plane.api_server().agent_kubeconfig())?;
    running.wait_for(POPULATION)?;
    control_plane.add_condition_without_time("steady")?;
    let starting = AgentOnPaper::start(control_plane.api_server().agent_kubeconfig())?;
    control_plane.delete_service("vanishing")?;
    for agent in [running, starting] {
        agent.wait_for(&POPULATION[..3])?;
        let warnings = agent.view()?.warnings;
        ensure!(warnings.is_empty(), "{warnings:?}");
    }
    Ok(())
}

#[test]
fn agent_keeps_what_it_knows_while_the_api_server_is_away_and_then_catches_up() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let control_plane = populated()?;
    let mut vanishing = control_plane.another_api_server()?;
    vanishing.start()?;
    let agent = AgentOnPaper::start(vanishing.agent_kubeconfig())?;
    agent.wait_for(POPULATION)?;

    vanishing.stop();
    control_plane.delete_service("vanishing")?;
    control_plane.remove_pod("shrinking-1")?;
    control_plane.apply(&service("appearing", "10.96.0.14"))?;
    run_pod(&control_plane, "appearing", "appearing-1", "10.244.1.5")?;
    sleep(A_WHILE);
    let known: Vec<_> = agent.known()?.into_iter().collect();
    ensure!(
        known == POPULATION,
        "without its API server the agent knows {known:?}"
    );
    let warnings = agent.view()?.warnings;
    ensure!(
        !warnings.is_empty(),
        "nobody is told that the API server is away"
    );

    vanishing.start()?;
    agent.wait_for(&[
        "appearing 10.244.1.5:80",
        "shrinking 10.244.1.3:80",
        "steady 10.244.1.1:80",
    ])?;
    poll(
        "the warning about the API server is gone",
        KNOWN_WITHIN,
        || Ok(agent.view()?.warnings.is_empty().then_some(())),
    )
}

#[test]
fn agent_that_starts_before_its_api_server_catches_up() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let control_plane = populated()?;
    let mut late = control_plane.another_api_server()?;
    let agent = AgentOnPaper::start(late.agent_kubeconfig())?;
    sleep(A_WHILE);
    ensure!(agent.known()?.is_empty());
    late.start()?;
    agent.wait_for(POPULATION)
}

#[test]
fn given_address_of_the_api_server_replaces_the_configured_one() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let control_plane = populated()?;
    let silent = control_plane.another_api_server()?;
    let address = control_plane.api_server().address();
    let agent = AgentOnPaper::start_with(silent.agent_kubeconfig(), Some(address))?;
    agent.wait_for(POPULATION)
}
