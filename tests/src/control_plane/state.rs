//! The control plane as a source of the agent, like any other.

use std::ffi::OsString;

use anyhow::Result;

use super::ControlPlane;
use crate::cluster::cluster_state::{ClusterState, PodObject};

impl ClusterState for ControlPlane {
    fn apply(&mut self, _name: &str, documents: &str) -> Result<()> {
        Self::apply(self, documents)
    }

    fn add_pod(&mut self, pod: &PodObject) -> Result<()> {
        let labels: Vec<_> = pod
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        self.create_pod(&pod.name, &pod.node, &labels)?;
        self.report_running(&pod.name, &addresses)
    }

    fn set_terminating(&mut self, pod: &str) -> Result<()> {
        self.terminate_pod(pod)
    }

    fn delete_pod(&mut self, pod: &str) -> Result<()> {
        self.remove_pod(pod)
    }

    fn agent_arguments(&self) -> Vec<OsString> {
        vec![
            "--kubeconfig".into(),
            self.api_server().agent_kubeconfig().into(),
        ]
    }
}
