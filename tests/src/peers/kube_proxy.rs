//! kube-proxy in nftables mode on a node of a test's cluster.

use std::path::Path;

use anyhow::{Result, bail};

use crate::cluster::topology::Node;
use crate::control_plane::assets;
use crate::machine::process::Process;
use crate::machine::scratch::Scratch;

/// A running kube-proxy; its rules go with the node's namespace.
#[derive(Debug)]
pub(super) struct KubeProxy {
    process: Process,
    _scratch: Scratch,
}

impl KubeProxy {
    /// Starts it; it follows the API server a while later.
    pub(super) fn start(node: &Node, kubeconfig: &Path, cluster_cidr: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        // Limits of conntrack are the whole machine's and none of a test's business.
        let settings = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {}}}
hostnameOverride: {}
mode: nftables
detectLocalMode: ClusterCIDR
clusterCIDR: {cluster_cidr}
nftables: {{minSyncPeriod: 100ms}}
conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
            kubeconfig.display(),
            node.name()
        );
        let settings = scratch.write("settings", settings)?;
        let mut command = node.namespace.command(assets()?.join("kube-proxy"));
        command.arg("--config").arg(settings);
        let log = scratch.path().join("log");
        let process = Process::start("kube-proxy", command, &log)?;
        Ok(Self {
            process,
            _scratch: scratch,
        })
    }

    /// An error if it has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.ended()? {
            bail!("kube-proxy has ended: {status}");
        }
        Ok(())
    }

    /// What a person needs to understand a failed test.
    pub(super) fn report(&self, node: &Node) -> String {
        let rules = node.namespace.output("nft", &["list", "ruleset"]);
        let rules = rules.unwrap_or_else(|error| format!("{error:#}"));
        format!(
            "---- log of kube-proxy:\n{}---- its rules:\n{rules}",
            self.process.log()
        )
    }
}
