//! The cluster of the README played through: a Service with three nginx pods, a pod too many and one
//! too few labels, clients everywhere, and a pod that is replaced under load.
//!
//! The story goes to a writer, for a person to follow; it ends at the first step that does not hold.

mod stage;
mod table;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::cluster_state::ClusterState;
use crate::cluster::topology::{Cluster, PodNetwork};
use crate::now;
use crate::traffic::download::SlowDownload;
use crate::traffic::load::{Load, LoadReport, LongConnection};
pub use stage::Stage;
use table::Seen;

/// The Service's ClusterIP and port.
pub const FRONTEND: &str = "10.103.145.6:80";

/// New connections per second of each of the four clients.
const RATE: u32 = 50;

/// How long the load runs before and after the pod is exchanged.
const CALM: Duration = Duration::from_secs(2);

/// No load runs longer than this, whatever happens.
const LOAD_LIMIT: Duration = Duration::from_mins(3);

/// How often curl asks from each client to show who answers.
const A_LOOK: usize = 8;

/// How long nginx serves on after its pod has turned terminating.
const STOPS_AFTER: Duration = Duration::from_secs(1);

/// A played scenario: its story, and the cluster while it is there.
#[expect(missing_debug_implementations, reason = "a writer has nothing to show")]
pub struct Scenario<'a, S> {
    stage: Stage<S>,
    out: &'a mut dyn Write,
    steps: u32,
}

impl<'a, S: ClusterState> Scenario<'a, S> {
    /// Builds the cluster, and what holds its objects; the story goes to `out`.
    pub fn new(
        network: PodNetwork,
        state: impl FnOnce(&Cluster) -> Result<S>,
        out: &'a mut dyn Write,
    ) -> Result<Self> {
        writeln!(
            out,
            "A cluster of two nodes (network namespaces), pod network: {network:?}."
        )?;
        let stage = Stage::new(network, state)?;
        Ok(Self {
            stage,
            out,
            steps: 0,
        })
    }

    /// Plays it to the end.
    pub fn play(&mut self) -> Result<()> {
        self.play_steps().map_err(|error| {
            let report = self.stage.report();
            error
                .context(format!("step {} did not hold", self.steps))
                .context(report)
        })
    }

    fn play_steps(&mut self) -> Result<()> {
        self.step("the Service and its pods are published, an agent runs on each node")?;
        self.stage.raise()?;
        Stage::<S>::describe(self.out)?;
        self.stage
            .wait_for_backends(&["web-1", "web-2", "web-3", "web-canary"])?;
        self.show(A_LOOK, &["web-1", "web-2", "web-3", "web-canary"])?;

        self.step("every client meets all four pods of the Service, and no other")?;
        self.all_answer(&["web-1", "web-2", "web-3", "web-canary"])?;

        self.step("a steady load of new connections begins; two downloads from web-1 begin")?;
        self.show(A_LOOK, &["web-1", "web-2", "web-3", "web-canary"])?;
        let load = self.begin_load()?;
        std::thread::sleep(CALM);

        self.step("web-1 (10.244.1.2) is deleted, web-4 (10.244.1.8) takes its place")?;
        self.stage.add_pod(1, "web-4", 8, &[("app", "nginx")])?;
        self.stage.state.set_terminating("web-1")?;
        self.stage
            .wait_for_backends(&["web-2", "web-3", "web-canary", "web-4"])?;
        let left = now();
        writeln!(
            self.out,
            "web-1 is terminating and out of the endpoints, web-4 is in."
        )?;
        self.show(A_LOOK, &["web-2", "web-3", "web-canary", "web-4"])?;
        std::thread::sleep(STOPS_AFTER);
        self.stage.quit_nginx("web-1")?;
        writeln!(
            self.out,
            "nginx of web-1 has been told to quit; it serves what is open."
        )?;
        let ended = self.stage.wait_nginx_ended("web-1")?;
        writeln!(
            self.out,
            "It has quit after {ended:.1?}; its pod is removed."
        )?;
        self.stage.state.delete_pod("web-1")?;
        self.stage.remove_pod("web-1");
        std::thread::sleep(CALM);

        self.step("no request failed, established connections finished, web-4 is used")?;
        self.end_load(load, left)?;
        self.show(A_LOOK, &["web-2", "web-3", "web-canary", "web-4"])?;

        self.step("every client meets the new set of pods")?;
        self.stage
            .wait_for_backends(&["web-2", "web-3", "web-canary", "web-4"])?;
        self.all_answer(&["web-2", "web-3", "web-canary", "web-4"])?;
        writeln!(self.out, "\nAll {} steps held.", self.steps)?;
        Ok(())
    }

    fn step(&mut self, text: &str) -> Result<()> {
        self.steps += 1;
        writeln!(self.out, "\n=== {}. {text}", self.steps)?;
        self.out.flush()?;
        Ok(())
    }

    /// The agents' view, and curl from every client, often enough that each pod must answer; none but
    /// `pods` may.
    fn all_answer(&mut self, pods: &[&str]) -> Result<()> {
        let times = crate::traffic::client::requests_to_meet_all(pods.len());
        self.show(times, pods)?.expect_all(pods)
    }

    /// The agents' view and what curl sees from every client; none but `pods` may answer.
    fn show(&mut self, times: usize, pods: &[&str]) -> Result<Seen> {
        // A look in passing is at one agent: each command takes a second in an emulated machine.
        self.show_agents(if times == A_LOOK { 1 } else { usize::MAX })?;
        let mut seen = Seen::default();
        for (name, namespace) in self.stage.clients() {
            let url = format!("http://{FRONTEND}/");
            let answers = crate::traffic::client::curl(&namespace, &url, times)
                .with_context(|| format!("curl {url} from {name}"))?;
            seen.add(&name, &answers);
        }
        writeln!(
            self.out,
            "\ncurl http://{FRONTEND}/, {times} times from each client:"
        )?;
        write!(self.out, "{seen}")?;
        self.out.flush()?;
        seen.expect_only(pods)?;
        Ok(seen)
    }

    /// Node 1's agent in full, another's where it says something else.
    fn show_agents(&mut self, many: usize) -> Result<()> {
        for words in ["get services -o wide", "get backends"] {
            let mut first: Option<String> = None;
            for agent in self.stage.agents().iter().take(many) {
                let node = agent.node().name();
                let text = agent.waggle(words)?;
                let says = without_ages(&text);
                if first.as_ref() == Some(&says) {
                    writeln!(self.out, "{node} says the same.")?;
                    continue;
                }
                writeln!(self.out, "\n{node}# waggle {words}\n{}", text.trim_end())?;
                first.get_or_insert(says);
            }
        }
        Ok(())
    }

    fn begin_load(&mut self) -> Result<RunningLoad> {
        let frontend: SocketAddr = FRONTEND.parse()?;
        let clients = self.stage.clients();
        let mut load = RunningLoad::default();
        for (name, namespace) in &clients {
            let started = Load::start(namespace, frontend, RATE, LOAD_LIMIT)?;
            load.loads.push((name.clone(), started));
        }
        for (name, namespace) in &clients {
            // One that web-1 serves would rightly end with its nginx, between two requests.
            for _ in 0..100 {
                let connection = LongConnection::start(namespace, frontend, LOAD_LIMIT)?;
                if !connection.server().starts_with("web-1 ") {
                    load.connections.push((name.clone(), connection));
                    break;
                }
            }
        }
        // The last to begin, so that on a slow machine too they last until their pod is deleted.
        for (name, namespace) in clients.iter().filter(|(name, _)| name.ends_with('1')) {
            let download = SlowDownload::start_from(namespace, frontend, "web-1")
                .with_context(|| format!("a download through {FRONTEND} from {name}"))?;
            load.downloads.push((name.clone(), download));
        }
        writeln!(
            self.out,
            "\n{RATE} new connections a second from each of {} clients, a slow download from web-1 to \
             each client of node 1, and a connection with a request every 20 ms from each client.",
            clients.len()
        )?;
        Ok(load)
    }

    fn end_load(&mut self, load: RunningLoad, left: std::time::Instant) -> Result<()> {
        let mut before = Seen::default();
        let mut after = Seen::default();
        let mut reports: Vec<(String, LoadReport)> = Vec::new();
        for (name, load) in load.loads {
            let report = load.stop()?;
            if let (Some(first), Some(last)) = (report.samples.first(), report.samples.last()) {
                before.add(&name, &report.answers_between(first.begun, left));
                let end = last.begun + Duration::from_nanos(1);
                after.add(&name, &report.answers_between(left, end));
            }
            reports.push((name, report));
        }
        writeln!(
            self.out,
            "\nanswers before web-1 had left the endpoints:\n{before}"
        )?;
        writeln!(self.out, "answers after that:\n{after}")?;
        for (name, report) in &reports {
            let (total, slow) = (report.samples.len(), report.slow());
            let failed = report
                .samples
                .iter()
                .filter(|one| one.result.is_err())
                .count();
            writeln!(
                self.out,
                "{name}: {total} requests, {failed} failed, {slow} took long"
            )?;
        }
        for (name, report) in &reports {
            report
                .check(100)
                .with_context(|| format!("the load from {name}"))?;
        }
        after.expect_only(&["web-2", "web-3", "web-canary", "web-4"])?;
        after.expect_all(&["web-2", "web-3", "web-canary", "web-4"])?;
        for (name, download) in load.downloads {
            let bytes = download.finish().with_context(|| format!("to {name}"))?;
            writeln!(
                self.out,
                "{name}: the download from web-1 is complete, {bytes} bytes"
            )?;
        }
        for (name, connection) in load.connections {
            let (server, count) = connection
                .stop()
                .with_context(|| format!("the long connection of {name}"))?;
            writeln!(
                self.out,
                "{name}: {count} requests over one connection to {server}"
            )?;
            ensure!(
                count > 50,
                "only {count} requests over the connection of {name}"
            );
        }
        Ok(())
    }

    /// The cluster, for whoever wants to look around in it.
    pub fn stage(&self) -> &Stage<S> {
        &self.stage
    }
}

/// A table's words but for how long ago something changed.
fn without_ages(table: &str) -> String {
    let mut kept = Vec::new();
    for line in table.lines() {
        for word in line.split_whitespace() {
            if word == "ago" {
                kept.pop();
            }
            kept.push(word);
        }
        kept.push("\n");
    }
    kept.join(" ")
}

/// All that runs while the pod is exchanged.
#[derive(Debug, Default)]
struct RunningLoad {
    loads: Vec<(String, Load)>,
    downloads: Vec<(String, SlowDownload)>,
    connections: Vec<(String, LongConnection)>,
}
