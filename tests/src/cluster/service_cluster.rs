//! A cluster with agents on both nodes and objects in a folder of manifests: what most netns tests
//! start from.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Error, Result, anyhow};

use crate::cluster::agent_process::Agent;
use crate::cluster::cluster_state::{ClusterState, ManifestFolder, PodObject, ServiceObject};
use crate::cluster::nginx::{Nginx, Settings};
use crate::cluster::topology::{Cluster, Pod, PodNetwork};
use crate::traffic::udp::UdpServer;

/// Where nginx listens in serving pods; frontends have other ports, so that an untranslated port shows.
pub const HTTP_PORT: u16 = 8080;

/// Where the UDP server listens in serving pods.
pub const UDP_PORT: u16 = 5353;

/// The frontend of the Service `web` for HTTP, IPv4.
pub const WEB_V4: &str = "10.96.0.80:80";
/// The frontend of the Service `web` for HTTP, IPv6.
pub const WEB_V6: &str = "[fd00:10:96::80]:80";
/// The frontend of the Service `web` for UDP, IPv4.
pub const UDP_V4: &str = "10.96.0.80:53";
/// The frontend of the Service `web` for UDP, IPv6.
pub const UDP_V6: &str = "[fd00:10:96::80]:53";

/// A pod with servers in it.
#[derive(Debug)]
pub struct ServingPod {
    /// The pod; its servers answer with its name.
    pub pod: Pod,
    /// HTTP on [`HTTP_PORT`].
    pub nginx: Nginx,
    /// UDP on [`UDP_PORT`].
    pub udp: UdpServer,
}

/// A cluster, its objects, and an agent on each node once [`ServiceCluster::start_agents`] has run.
#[derive(Debug)]
pub struct ServiceCluster {
    /// The objects the agents see.
    pub state: ManifestFolder,
    /// The agents of node 1 and node 2.
    pub agents: Vec<Agent>,
    /// The nodes.
    pub cluster: Cluster,
}

impl ServiceCluster {
    /// Two nodes, the dual-stack Service `web` (selector `app: web`), no pods, no agents.
    pub fn new(network: PodNetwork) -> Result<Self> {
        let mut state = ManifestFolder::new()?;
        let web = ServiceObject {
            name: "web".to_owned(),
            cluster_ips: vec![address(WEB_V4)?.ip(), address(WEB_V6)?.ip()],
            selector: vec![("app".to_owned(), "web".to_owned())],
            ports: vec![("TCP", 80, HTTP_PORT), ("UDP", 53, UDP_PORT)],
        };
        state.apply("service-web", &web.yaml()?)?;
        Ok(Self {
            state,
            agents: Vec::new(),
            cluster: Cluster::new(network)?,
        })
    }

    /// Makes a pod of Service `web` at 10.244.`node`.`octet`, with its servers running, and publishes it.
    pub fn add_serving_pod(&mut self, node: u8, name: &str, octet: u8) -> Result<ServingPod> {
        self.add_serving_pod_with(node, name, octet, Settings::default())
    }

    /// The same with settings for nginx; its port is always [`HTTP_PORT`].
    pub fn add_serving_pod_with(
        &mut self,
        node: u8,
        name: &str,
        octet: u8,
        settings: Settings,
    ) -> Result<ServingPod> {
        let pod = self.cluster.add_pod(node, name, octet)?;
        self.serve_in_with(pod, settings)
    }

    /// Starts the servers of a pod that is there, and publishes it as a pod of Service `web`.
    pub fn serve_in(&mut self, pod: Pod) -> Result<ServingPod> {
        self.serve_in_with(pod, Settings::default())
    }

    fn serve_in_with(&mut self, pod: Pod, settings: Settings) -> Result<ServingPod> {
        let settings = Settings {
            port: HTTP_PORT,
            ..settings
        };
        let name = &pod.name;
        let nginx = Nginx::start(&pod.namespace, name, settings)?;
        let udp = UdpServer::start(&pod.namespace, name, UDP_PORT)?;
        self.state.add_pod(&pod_object(&pod, &[("app", "web")]))?;
        Ok(ServingPod { pod, nginx, udp })
    }

    /// Starts an agent on each node and waits until each has the pods of `web`.
    pub fn start_agents(&mut self, pods: &[&ServingPod]) -> Result<()> {
        self.start_agents_with(pods, &[])
    }

    /// Adds the Service `all` over the pods of `web`: HTTP and UDP at cluster addresses (.81) and at the node ports 30080
    /// and 30053. `more` are further lines of its spec, indented by two.
    pub fn add_node_ports(&mut self, more: &str) -> Result<()> {
        let service = format!(
            "kind: Service
metadata: {{name: all, namespace: default}}
spec:
  type: NodePort
  selector: {{app: web}}
  clusterIPs: [10.96.0.81, 'fd00:10:96::81']
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: {HTTP_PORT}, nodePort: 30080}}
  - {{name: dns, protocol: UDP, port: 53, targetPort: {UDP_PORT}, nodePort: 30053}}
{more}"
        );
        self.state.apply("service-all", &service)
    }

    /// The same, with further arguments of `waggle run`.
    pub fn start_agents_with(&mut self, pods: &[&ServingPod], extra: &[&str]) -> Result<()> {
        for node in self.cluster.nodes() {
            let extra = extra.iter().map(Into::into).collect();
            let agent = Agent::start_with(node, self.state.agent_arguments(), extra)?;
            self.agents.push(agent);
        }
        self.wait_for(pods)
    }

    /// Waits until each agent sends new flows of `web` to exactly these pods.
    pub fn wait_for(&self, pods: &[&ServingPod]) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for pod in pods {
            for port in [HTTP_PORT, UDP_PORT] {
                wanted.insert(pod.pod.socket_v4(port));
                wanted.insert(pod.pod.socket_v6(port));
            }
        }
        for agent in &self.agents {
            wait_for_backends(agent, "default/web", &wanted)?;
        }
        Ok(())
    }

    /// What a person needs to understand why a test failed.
    fn report(&self) -> String {
        self.agents.iter().map(Agent::report).collect()
    }
}

impl Drop for ServiceCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crate::machine::require::print(&self.report());
        }
    }
}

/// Runs a test on a new cluster if we are root; a failure comes with the agents' logs and state.
pub fn with_services(
    network: PodNetwork,
    test: impl FnOnce(&mut ServiceCluster) -> Result<()>,
) -> Result<()> {
    if !crate::require_root() {
        return Ok(());
    }
    let mut cluster = ServiceCluster::new(network)?;
    test(&mut cluster).map_err(|error| with_report(&error, &cluster))
}

fn with_report(error: &Error, cluster: &ServiceCluster) -> Error {
    anyhow!("{error:#}\n{}", cluster.report())
}

/// How a pod looks to the API.
pub fn pod_object(pod: &Pod, labels: &[(&str, &str)]) -> PodObject {
    PodObject {
        name: pod.name.clone(),
        node: format!("node{}", pod.node),
        addresses: vec![pod.v4.into(), pod.v6.into()],
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

/// Reads a constant of this module.
pub fn address(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| text.to_owned())
}

/// Waits until the backends that take new flows of a service are exactly `wanted`.
pub fn wait_for_backends(
    agent: &Agent,
    service: &str,
    wanted: &BTreeSet<SocketAddr>,
) -> Result<()> {
    agent.wait_until("get backends -o json", |text| {
        active_backends(text, service).is_some_and(|active| active == *wanted)
    })
}

/// The addresses of a service's backends in state `active`, from `waggle get backends -o json`.
fn active_backends(json: &str, service: &str) -> Option<BTreeSet<SocketAddr>> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let list = value
        .as_array()
        .or_else(|| value.get("backends")?.as_array())?;
    let mut active = BTreeSet::new();
    for backend in list {
        let text = |key: &str| backend.get(key).and_then(serde_json::Value::as_str);
        let is_ours = text("service").is_some_and(|name| {
            let rest = name.strip_prefix(service);
            rest.is_some_and(|rest| rest.starts_with([':', '/']))
        });
        if is_ours && text("state") == Some("active") {
            active.insert(text("address")?.parse().ok()?);
        }
    }
    Some(active)
}

/// The line nginx answers with: pod name and address.
pub fn answer_of(pod: &Pod, frontend: SocketAddr) -> String {
    let address: IpAddr = pod.address_like(frontend.ip());
    format!("{} {address}", pod.name)
}
