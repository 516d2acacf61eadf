//! How a test publishes the objects of its cluster: the agent must do the same whether they come
//! from a folder of manifests or from a real control plane.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::machine::scratch::Scratch;

/// A Pod as the kubelet reports it: running, ready, with its addresses.
#[derive(Clone, Debug)]
pub struct PodObject {
    /// Its name in namespace `default`.
    pub name: String,
    /// The name of its node.
    pub node: String,
    /// Its addresses, the first is `podIP`.
    pub addresses: Vec<std::net::IpAddr>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
}

/// The objects of a cluster, changed as its users, controllers and kubelets change them.
pub trait ClusterState {
    /// Creates or replaces the Services (or other objects) in YAML documents.
    fn apply(&mut self, name: &str, documents: &str) -> Result<()>;

    /// A pod runs and is ready.
    fn add_pod(&mut self, pod: &PodObject) -> Result<()>;

    /// Somebody deletes the pod: it turns terminating, so its endpoint is no longer ready, but it still
    /// serves.
    fn set_terminating(&mut self, pod: &str) -> Result<()>;

    /// The pod's processes have ended: the object goes, and with it the endpoint.
    fn delete_pod(&mut self, pod: &str) -> Result<()>;

    /// The arguments of `waggle run` that name this source.
    fn agent_arguments(&self) -> Vec<OsString>;
}

/// A folder of manifests with a file for each object.
#[derive(Debug)]
pub struct ManifestFolder {
    scratch: Scratch,
    pods: Vec<(PodObject, u32)>,
    count: u32,
}

impl ManifestFolder {
    /// An empty folder.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        fs::create_dir(scratch.path().join("manifests"))?;
        Ok(Self {
            scratch,
            pods: Vec::new(),
            count: 0,
        })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("manifests")
    }

    /// Gives a pod other labels; it stays the same pod.
    pub fn relabel(&mut self, pod: &PodObject) -> Result<()> {
        let mut pods = self.pods.iter_mut();
        let known = pods.find(|(known, _)| known.name == pod.name);
        let (object, uid) = known.with_context(|| format!("no pod {}", pod.name))?;
        object.labels.clone_from(&pod.labels);
        let text = manifest(object, *uid, false)?;
        self.publish(&format!("pod-{}", pod.name), &text)
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path().join(format!("{name}.yaml"));
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// A file appears whole or not at all: written beside the folder, then moved into it.
    fn publish(&self, name: &str, documents: &str) -> Result<()> {
        let written = self.scratch.write("being-written", documents)?;
        let path = self.path().join(format!("{name}.yaml"));
        fs::rename(written, &path).with_context(|| format!("write {}", path.display()))
    }
}

impl ClusterState for ManifestFolder {
    fn apply(&mut self, name: &str, documents: &str) -> Result<()> {
        self.publish(name, documents)
    }

    fn add_pod(&mut self, pod: &PodObject) -> Result<()> {
        self.count += 1;
        let text = manifest(pod, self.count, false)?;
        self.publish(&format!("pod-{}", pod.name), &text)?;
        self.pods.retain(|(known, _)| known.name != pod.name);
        self.pods.push((pod.clone(), self.count));
        Ok(())
    }

    fn set_terminating(&mut self, pod: &str) -> Result<()> {
        let known = self.pods.iter().find(|(known, _)| known.name == pod);
        let (object, uid) = known.with_context(|| format!("no pod {pod}"))?;
        let text = manifest(object, *uid, true)?;
        self.publish(&format!("pod-{pod}"), &text)
    }

    fn delete_pod(&mut self, pod: &str) -> Result<()> {
        self.pods.retain(|(known, _)| known.name != pod);
        self.remove(&format!("pod-{pod}"))
    }

    fn agent_arguments(&self) -> Vec<OsString> {
        vec!["--manifests".into(), self.path().into()]
    }
}

fn manifest(pod: &PodObject, uid: u32, is_terminating: bool) -> Result<String> {
    let mut text = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {}
  namespace: default
  uid: 00000000-0000-4000-8000-{uid:012}
  labels:\n",
        pod.name
    );
    for (key, value) in &pod.labels {
        writeln!(text, "    {key}: \"{value}\"")?;
    }
    if is_terminating {
        text.push_str("  deletionTimestamp: \"2026-01-01T00:00:00Z\"\n");
        text.push_str("  deletionGracePeriodSeconds: 30\n");
    }
    write!(
        text,
        "spec:
  nodeName: {}
  containers:
  - name: nginx
    image: nginx
    ports:
    - containerPort: 80
status:
  phase: Running\n",
        pod.node
    )?;
    if let Some(first) = pod.addresses.first() {
        writeln!(text, "  podIP: \"{first}\"\n  podIPs:")?;
    }
    for address in &pod.addresses {
        writeln!(text, "  - ip: \"{address}\"")?;
    }
    text.push_str("  conditions:\n  - type: Ready\n    status: \"True\"\n");
    Ok(text)
}

/// A Service of namespace `default` in YAML.
#[derive(Clone, Debug)]
pub struct ServiceObject {
    /// Its name.
    pub name: String,
    /// Its cluster addresses, one or two.
    pub cluster_ips: Vec<std::net::IpAddr>,
    /// Labels a pod must have.
    pub selector: Vec<(String, String)>,
    /// (protocol, port, target port)
    pub ports: Vec<(&'static str, u16, u16)>,
}

impl ServiceObject {
    /// The manifest.
    pub fn yaml(&self) -> Result<String> {
        let mut text = format!(
            "apiVersion: v1
kind: Service
metadata:
  name: {}
  namespace: default
spec:
  selector:\n",
            self.name
        );
        for (key, value) in &self.selector {
            writeln!(text, "    {key}: \"{value}\"")?;
        }
        if let Some(first) = self.cluster_ips.first() {
            writeln!(text, "  clusterIP: \"{first}\"\n  clusterIPs:")?;
        }
        for address in &self.cluster_ips {
            writeln!(text, "  - \"{address}\"")?;
        }
        text.push_str("  ipFamilies:\n");
        for address in &self.cluster_ips {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            writeln!(text, "  - {family}")?;
        }
        if self.cluster_ips.len() > 1 {
            text.push_str("  ipFamilyPolicy: RequireDualStack\n");
        }
        text.push_str("  ports:\n");
        for (protocol, port, target) in &self.ports {
            let name = format!("{}-{port}", protocol.to_lowercase());
            writeln!(
                text,
                "  - name: {name}\n    protocol: {protocol}\n    port: {port}\n    targetPort: {target}"
            )?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminating_pod_differs_from_a_running_one_by_its_deletion_time_only() {
        let pod = PodObject {
            name: "web".to_owned(),
            node: "node1".to_owned(),
            addresses: vec!["10.244.1.2".parse().expect("an address")],
            labels: vec![("app".to_owned(), "nginx".to_owned())],
        };
        let running = manifest(&pod, 1, false).expect("text");
        let terminating = manifest(&pod, 1, true).expect("text");
        let kept: String = terminating
            .lines()
            .filter(|line| !line.contains("deletion"))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_ne!(running, terminating);
        assert_eq!(running, kept);
    }
}
