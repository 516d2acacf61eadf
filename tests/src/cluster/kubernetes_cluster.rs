//! The cluster of [`crate::cluster::topology`] under a real control plane.
//!
//! The control plane runs outside the nodes, as a managed one does, and is reached by an address of
//! the underlay. This file is scheduler and kubelet: it binds pods to nodes, runs nginx for
//! them, reports their status, and lets them go.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1 as kubernetes;
use kube::ResourceExt;

use crate::cluster::nginx::{Nginx, Settings};
use crate::cluster::topology::{Cluster, Pod, PodNetwork};
use crate::control_plane::{ControlPlane, poll};

/// The address of `outside` on the underlay.
const API_SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

/// How long a set's controller may take to make a Pod, on a machine that is busy.
const MADE_WITHIN: Duration = Duration::from_secs(30);

/// Two nodes, their pods, and Kubernetes.
pub struct KubernetesCluster {
    /// etcd, API servers, controllers.
    pub control_plane: ControlPlane,
    /// Nodes, pods and the ways between them.
    pub network: Cluster,
}

/// A Pod that runs nginx in a pod of the topology.
pub struct RunningPod {
    /// The namespace, its addresses and interface.
    pub pod: Pod,
    nginx: Nginx,
}

/// A control plane that the nodes reach, with an object for each of them.
pub fn control_plane_of(network: &Cluster) -> Result<ControlPlane> {
    let control_plane = ControlPlane::start_in(&network.outside, API_SERVER.into())?;
    for node in network.nodes() {
        let (v4, v6) = (node.v4().to_string(), node.v6().to_string());
        control_plane.create_node(&node.name(), &[&v4, &v6])?;
    }
    Ok(control_plane)
}

impl KubernetesCluster {
    /// Builds the network, starts the control plane and registers the nodes.
    pub fn start(network: PodNetwork) -> Result<Self> {
        let network = Cluster::new(network)?;
        Ok(Self {
            control_plane: control_plane_of(&network)?,
            network,
        })
    }

    /// Runs a pod that no Pod object stands for, for instance a client.
    pub fn add_pod(&self, node: u8, name: &str, octet: u8) -> Result<Pod> {
        self.network.add_pod(node, name, octet)
    }

    /// Makes a Pod with these labels and runs it at 10.244.`node`.`octet`.
    pub fn run_pod(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        node: u8,
        octet: u8,
    ) -> Result<RunningPod> {
        self.control_plane
            .create_pod(name, &self.network.node(node).name(), labels)?;
        self.run(name, node, octet)
    }

    /// Waits for a Pod that a controller has made and nobody has bound yet, binds it and runs it at
    /// 10.244.`node`.`octet`.
    pub fn run_pending_pod(&self, selector: &str, node: u8, octet: u8) -> Result<RunningPod> {
        let name = poll(
            &format!("there is a new pod of {selector}"),
            MADE_WITHIN,
            || {
                let pods = self.control_plane.pods(selector)?;
                Ok(pods
                    .iter()
                    .find(|pod| is_unbound(pod))
                    .map(ResourceExt::name_any))
            },
        )?;
        self.control_plane
            .bind_pod(&name, &self.network.node(node).name())?;
        self.run(&name, node, octet)
    }

    fn run(&self, name: &str, node: u8, octet: u8) -> Result<RunningPod> {
        let pod = self.network.add_pod(node, name, octet)?;
        let nginx = Nginx::start(&pod.namespace, name, Settings::default())?;
        let (v4, v6) = (pod.v4.to_string(), pod.v6.to_string());
        self.control_plane.report_running(name, &[&v4, &v6])?;
        Ok(RunningPod { pod, nginx })
    }

    /// What happens when a person deletes a Pod: it turns terminating at once; its server stops a
    /// while later and serves what is open to its end; then it is gone.
    pub fn delete_pod(&self, mut running: RunningPod, stops_after: Duration) -> Result<()> {
        self.control_plane.terminate_pod(&running.pod.name)?;
        std::thread::sleep(stops_after);
        running.nginx.quit()?;
        running.nginx.wait(Duration::from_secs(30))?;
        self.control_plane.remove_pod(&running.pod.name)
    }
}

impl RunningPod {
    /// What its nginx answers in the family of `like`.
    pub fn answer(&self, like: IpAddr) -> String {
        format!("{} {}", self.pod.name, self.pod.address_like(like))
    }
}

fn is_unbound(pod: &kubernetes::Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_none())
}
