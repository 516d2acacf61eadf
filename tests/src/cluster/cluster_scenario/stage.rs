//! What the scenario plays on: nodes, pods with nginx, clients, agents.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::FRONTEND;
use crate::cluster::agent_process::Agent;
use crate::cluster::cluster_state::{ClusterState, ServiceObject};
use crate::cluster::nginx::{Nginx, Settings};
use crate::cluster::service_cluster::{pod_object, wait_for_backends};
use crate::cluster::topology::{Cluster, Pod, PodNetwork};
use crate::machine::netns::Namespace;
use crate::now;

/// nginx must end by itself once its last download is served.
const QUITS_WITHIN: Duration = Duration::from_mins(1);

/// Keys and values.
type Labels = &'static [(&'static str, &'static str)];

/// The selector of the Service, as `key: value`.
const SELECTOR: (&str, &str) = ("app", "nginx");

/// (node, pod, last byte of the address, labels)
const PODS: [(u8, &str, u8, Labels); 5] = [
    (1, "web-1", 2, &[SELECTOR]),
    (2, "web-2", 2, &[SELECTOR]),
    (2, "web-3", 3, &[SELECTOR]),
    (1, "web-canary", 3, &[SELECTOR, ("tier", "canary")]),
    (2, "stranger", 4, &[("tier", "canary")]),
];

/// The cluster of the scenario.
#[derive(Debug)]
pub struct Stage<S> {
    /// The objects the agents see.
    pub state: S,
    agents: Vec<Agent>,
    serving: Vec<(Pod, Nginx)>,
    clients: Vec<Pod>,
    cluster: Cluster,
}

impl<S: ClusterState> Stage<S> {
    pub(super) fn new(
        network: PodNetwork,
        state: impl FnOnce(&Cluster) -> Result<S>,
    ) -> Result<Self> {
        let cluster = Cluster::new(network)?;
        let clients = vec![
            cluster.add_pod(1, "client-1", 100)?,
            cluster.add_pod(2, "client-2", 100)?,
        ];
        Ok(Self {
            state: state(&cluster)?,
            agents: Vec::new(),
            serving: Vec::new(),
            clients,
            cluster,
        })
    }

    /// Starts the pods, publishes them and the Service, and starts the agents.
    pub(super) fn raise(&mut self) -> Result<()> {
        let frontend: SocketAddr = FRONTEND.parse()?;
        let (key, value) = SELECTOR;
        let service = ServiceObject {
            name: "my-service".to_owned(),
            cluster_ips: vec![frontend.ip()],
            selector: vec![(key.to_owned(), value.to_owned())],
            ports: vec![("TCP", frontend.port(), 80)],
        };
        self.state.apply("my-service", &service.yaml()?)?;
        for (node, name, octet, labels) in PODS {
            self.add_pod(node, name, octet, labels)?;
        }
        self.agents = Agent::start_all(self.cluster.nodes(), &self.state.agent_arguments())?;
        Ok(())
    }

    /// Says what is there.
    pub(super) fn describe(out: &mut dyn Write) -> Result<()> {
        writeln!(
            out,
            "Service my-service, ClusterIP {FRONTEND} -> 80, selector {}: {}",
            SELECTOR.0, SELECTOR.1
        )?;
        for (node, name, octet, labels) in PODS {
            let labels: Vec<_> = labels
                .iter()
                .map(|(key, value)| format!("{key}: {value}"))
                .collect();
            writeln!(
                out,
                "  node{node}  {name:<11} 10.244.{node}.{octet:<4} {}",
                labels.join(", ")
            )?;
        }
        Ok(())
    }

    /// A pod with nginx in it, running and published.
    pub(super) fn add_pod(
        &mut self,
        node: u8,
        name: &str,
        octet: u8,
        labels: &[(&str, &str)],
    ) -> Result<()> {
        let pod = self.cluster.add_pod(node, name, octet)?;
        let settings = Settings {
            slow_size: 160_000,
            ..Settings::default()
        };
        let nginx = Nginx::start(&pod.namespace, name, settings)?;
        let mut object = pod_object(&pod, labels);
        object.addresses.truncate(1);
        self.state.add_pod(&object)?;
        self.serving.push((pod, nginx));
        Ok(())
    }

    fn nginx(&mut self, name: &str) -> Result<&mut Nginx> {
        let found = self.serving.iter_mut().find(|(pod, _)| pod.name == name);
        Ok(&mut found.with_context(|| format!("no pod {name}"))?.1)
    }

    /// Asks a pod's nginx to quit once it has served what is open.
    pub(super) fn quit_nginx(&mut self, name: &str) -> Result<()> {
        self.nginx(name)?.quit()
    }

    /// Waits for its end, and says how long that took.
    pub(super) fn wait_nginx_ended(&mut self, name: &str) -> Result<Duration> {
        let begin = now();
        self.nginx(name)?.wait(QUITS_WITHIN)?;
        Ok(begin.elapsed())
    }

    /// Takes a pod's namespace and interface away.
    pub(super) fn remove_pod(&mut self, name: &str) {
        self.serving.retain(|(pod, _)| pod.name != name);
    }

    /// Waits until each agent sends new connections to exactly these pods.
    pub(super) fn wait_for_backends(&self, names: &[&str]) -> Result<()> {
        let pods = self.serving.iter().map(|(pod, _)| pod);
        let wanted: BTreeSet<SocketAddr> = pods
            .filter(|pod| names.contains(&pod.name.as_str()))
            .map(|pod| pod.socket_v4(80))
            .collect();
        for agent in &self.agents {
            wait_for_backends(agent, "default/my-service", &wanted)?;
        }
        Ok(())
    }

    /// The agents, node 1's first.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Where clients run: a pod on each node, and each node itself.
    pub fn clients(&self) -> Vec<(String, Namespace)> {
        let pods = self.clients.iter();
        let pods = pods.map(|pod| (format!("pod {}", pod.name), pod.namespace.clone()));
        let nodes = self.cluster.nodes().iter();
        let nodes = nodes.map(|node| (format!("process {}", node.name()), node.namespace.clone()));
        pods.chain(nodes).collect()
    }

    /// What explains a failure.
    pub(super) fn report(&self) -> String {
        self.agents.iter().map(Agent::report).collect()
    }
}
