//! A real Kubernetes control plane for one test: etcd, kube-apiserver, kube-controller-manager.
//!
//! Nothing stands in for Kubernetes but the parts that would run pods: tests bind pods to nodes
//! (the scheduler's work) and patch their status (the kubelet's). Selectors and EndpointSlices are
//! the controllers' own work.

mod api_server;
mod assets;
mod credentials;
mod etcd;
mod objects;
mod program;
mod resident;
mod service_account;
mod site;
mod state;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;

pub use api_server::ApiServer;
pub use assets::assets;
pub use objects::{EndpointState, Endpoints};

use crate::machine::netns::Namespace;
use crate::now;
use program::Program;
use site::Site;

/// Where ClusterIPs come from; the first ClusterIP of IPv4 is in kubeadm's default range.
pub const SERVICE_CIDR_V4: &str = "10.96.0.0/12";

/// Where ClusterIPs of IPv6 come from.
pub const SERVICE_CIDR_V6: &str = "fd00:10:96::/112";

/// The user that an agent's kubeconfig speaks for: the agent's ServiceAccount.
pub const AGENT_USER: &str = "system:serviceaccount:kube-system:waggle";

/// The agent's ServiceAccount and what it may do, as it is deployed in a cluster.
const AGENT_RIGHTS: &str = include_str!("../../../lb-userspace/deploy/rbac.yaml");

/// How long a program may take until it is of use, on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// The controllers that Services, Endpoints and sets of pods need; others would want nodes that
/// report and accounts that nobody makes here.
const CONTROLLERS: &str = "endpointslice-controller,endpointslice-mirroring-controller,\
    endpoints-controller,replicaset-controller,deployment-controller,namespace-controller,garbage-collector-controller";

/// A control plane of its own; everything ends with this value.
pub struct ControlPlane {
    // Dropped in this order: clients of etcd before etcd.
    controllers: Program,
    api_server: ApiServer,
    etcd: Program,
    client: Client,
    site: Arc<Site>,
}

impl ControlPlane {
    /// Starts on loopback, in the caller's network namespace.
    pub fn start() -> Result<Self> {
        Self::start_in(&Namespace::current()?, Ipv4Addr::LOCALHOST.into())
    }

    /// Starts in a namespace, with API servers at this address of it, and waits until it answers.
    pub fn start_in(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let site = Arc::new(Site::new(namespace, address)?);
        let etcd = etcd::start(&site)?;
        let mut api_server = ApiServer::prepare(&site)?;
        api_server.start().with_context(|| etcd.log_tail())?;
        let client = api_server.client()?;
        let controllers = start_controllers(&site, api_server.kubeconfig())?;
        let control_plane = Self {
            controllers,
            api_server,
            etcd,
            client,
            site,
        };
        control_plane.wait_for_namespaces()?;
        control_plane.apply(AGENT_RIGHTS)?;
        Ok(control_plane)
    }

    /// The API server that the controllers and the tests use.
    pub fn api_server(&self) -> &ApiServer {
        &self.api_server
    }

    /// One more API server on the same etcd, not started: for clients whose API server is to be
    /// away while the cluster lives on.
    pub fn another_api_server(&self) -> Result<ApiServer> {
        ApiServer::prepare(&self.site)
    }

    /// Waits for work with a client that may do everything.
    pub fn run<T, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.site.resident.run(work(self.client.clone()))
    }
}

impl Drop for ControlPlane {
    #[expect(clippy::print_stderr, reason = "the logs are gone after a failed test")]
    fn drop(&mut self) {
        if thread::panicking() {
            let logs = [self.etcd.log_tail(), self.api_server.log_tail()];
            eprint!("{}{}", logs.concat(), self.controllers.log_tail());
        }
    }
}

/// Asks again every few milliseconds until there is an answer; an error once the time is up.
pub fn poll<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(10);
    let begin = now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begin.elapsed() > limit {
            bail!("waited {} s in vain until {what}", limit.as_secs());
        }
        thread::sleep(PAUSE);
    }
}

fn start_controllers(site: &Site, kubeconfig: &Path) -> Result<Program> {
    Program::start(
        site,
        "kube-controller-manager",
        &[
            ("kubeconfig", kubeconfig.display().to_string()),
            ("controllers", CONTROLLERS.to_owned()),
            ("leader-elect", "false".into()),
            // Nobody asks for its metrics, and a port could be taken.
            ("secure-port", "0".into()),
            ("kube-api-qps", "500".into()),
            ("kube-api-burst", "1000".into()),
        ],
    )
}
