//! An agent without Services: for tests of what it does with devices, cgroups and the command line.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;

use crate::cluster::agent_process::Agent;
use crate::cluster::cluster_state::{ClusterState as _, ManifestFolder};
use crate::cluster::topology::{Cluster, PodNetwork};
use crate::machine::netns::Namespace;
use crate::now;

/// What no machine needs, however many tests it runs.
const MUCH: Duration = Duration::from_secs(30);

/// A node with an agent that knows of no Services.
#[derive(Debug)]
pub struct LoneAgent {
    /// The agent.
    pub agent: Agent,
    /// The node's namespace.
    pub namespace: Namespace,
    _state: ManifestFolder,
    _cluster: Cluster,
}

impl LoneAgent {
    /// Starts it on node 1 of a cluster without pods, with further arguments.
    pub fn start(extra: &[&str]) -> Result<Self> {
        let cluster = Cluster::new(PodNetwork::Routed)?;
        let state = ManifestFolder::new()?;
        let node = cluster.node(1);
        let extra = extra.iter().map(Into::into).collect();
        Ok(Self {
            agent: Agent::start_with(node, state.agent_arguments(), extra)?,
            namespace: node.namespace.clone(),
            _state: state,
            _cluster: cluster,
        })
    }

    /// What `waggle status` says of a device.
    pub fn device(&self, name: &str) -> Result<Option<Value>> {
        let status: Value = serde_json::from_str(&self.agent.waggle("status -o json")?)?;
        let devices = status["agent"]["devices"].as_array().cloned();
        let mut devices = devices.unwrap_or_default().into_iter();
        Ok(devices.find(|device| device["name"] == name))
    }

    /// Waits until what `waggle status` says of a device is as wanted; `None` is a device it does not list.
    pub fn wait_for(
        &self,
        name: &str,
        is_as_wanted: impl Fn(Option<&Value>) -> bool,
    ) -> Result<()> {
        let begin = now();
        loop {
            let device = self.device(name)?;
            if is_as_wanted(device.as_ref()) {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < MUCH,
                "after {MUCH:?} {name} is {device:?}\n{}",
                self.agent.report()
            );
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits until both programs hang on a device; how long that took.
    pub fn wait_attached(&self, name: &str) -> Result<Duration> {
        let begin = now();
        while attached(&self.namespace, name)? != [1, 1] {
            ensure!(
                begin.elapsed() < MUCH,
                "{name} is not attached to after {MUCH:?}\n{}",
                self.agent.report()
            );
            sleep(Duration::from_millis(1));
        }
        Ok(begin.elapsed())
    }
}

/// Whether this kernel has TCX (6.6 and newer); without it everything is attached by clsact.
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// How many programs hang on both sides of a device, by TCX or, on a kernel without it, by clsact
/// filters of ours; none for a device that is not there.
pub fn attached(namespace: &Namespace, name: &str) -> Result<[usize; 2]> {
    if has_tcx() {
        return attached_by_tcx(namespace, name);
    }
    Ok(["ingress", "egress"].map(|side| {
        let shown = namespace.output("tc", &["filter", "show", "dev", name, side]);
        let shown = shown.unwrap_or_default();
        shown
            .lines()
            .filter(|line| line.contains("waggle_"))
            .count()
    }))
}

/// How many programs hang on both sides of a device by TCX; none for a device that is not there.
pub fn attached_by_tcx(namespace: &Namespace, name: &str) -> Result<[usize; 2]> {
    namespace.run(|| {
        Ok([TcAttachType::Ingress, TcAttachType::Egress].map(|side| {
            SchedClassifier::query_tcx(name, side).map_or(0, |(_, programs)| programs.len())
        }))
    })
}

/// The names of the devices in a namespace.
pub fn device_names(namespace: &Namespace) -> Result<Vec<String>> {
    let shown: Value = serde_json::from_str(&namespace.output("ip", &["-json", "link"])?)?;
    let devices = shown.as_array().context("a list of devices")?;
    let names = devices
        .iter()
        .filter_map(|device| device["ifname"].as_str());
    Ok(names.map(str::to_owned).collect())
}
