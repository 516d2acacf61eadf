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

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;

pub use api_server::ApiServer;
pub use assets::assets;
pub use objects::{EndpointState, Endpoints};

use credentials::Credentials;
use program::Program;
use resident::Resident;

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
    endpoints-controller,replicaset-controller,deployment-controller,namespace-controller";

/// Where a control plane runs.
pub struct Placement {
    /// The address the API server listens on.
    pub address: IpAddr,
    /// The network namespace of that address; None is the caller's.
    pub namespace: Option<OwnedFd>,
}

/// A control plane of its own; everything ends with this value.
pub struct ControlPlane {
    // Fields are dropped in this order: clients of etcd before etcd, and the folder last.
    controllers: Program,
    api_server: ApiServer,
    etcd: Program,
    client: Client,
    credentials: Credentials,
    address: IpAddr,
    assets: PathBuf,
    resident: Arc<Resident>,
    folder: Folder,
}

impl ControlPlane {
    /// Starts on loopback, in the caller's network namespace.
    pub fn start() -> Result<Self> {
        Self::start_at(Placement {
            address: Ipv4Addr::LOCALHOST.into(),
            namespace: None,
        })
    }

    /// Starts at the given place and waits until it answers.
    pub fn start_at(placement: Placement) -> Result<Self> {
        let assets = assets()?;
        let folder = Folder::create()?;
        let address = placement.address;
        let resident = Arc::new(Resident::start(placement.namespace)?);
        let credentials = Credentials::create(&folder.0, &[address])?;

        let etcd = etcd::start(&resident, &assets, &folder.0)?;
        let mut api_server =
            ApiServer::prepare(&resident, &assets, &folder.0, &credentials, address)?;
        api_server.start().with_context(|| etcd.log_tail())?;
        let client = api_server.client()?;
        let controllers =
            start_controllers(&resident, &assets, &folder.0, api_server.kubeconfig())?;
        let cluster = Self {
            controllers,
            api_server,
            etcd,
            client,
            credentials,
            address,
            assets,
            resident,
            folder,
        };
        cluster.wait_for_namespaces()?;
        cluster.apply(AGENT_RIGHTS)?;
        Ok(cluster)
    }

    /// The API server that the controllers and the tests use.
    pub fn api_server(&mut self) -> &mut ApiServer {
        &mut self.api_server
    }

    /// One more API server on the same etcd, not started: for clients whose API server is to be
    /// away while the cluster lives on.
    pub fn another_api_server(&self) -> Result<ApiServer> {
        ApiServer::prepare(
            &self.resident,
            &self.assets,
            &self.folder.0,
            &self.credentials,
            self.address,
        )
    }

    /// Waits for work with a client that may do everything.
    pub fn run<T, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.resident.run(work(self.client.clone()))
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
    let begin = tokio::time::Instant::now();
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

fn start_controllers(
    resident: &Resident,
    assets: &Path,
    folder: &Path,
    kubeconfig: &Path,
) -> Result<Program> {
    let arguments = [
        ("kubeconfig", kubeconfig.display().to_string()),
        ("controllers", CONTROLLERS.to_owned()),
        ("leader-elect", "false".into()),
        // Nobody asks for its metrics, and a port could be taken.
        ("secure-port", "0".into()),
        ("kube-api-qps", "500".into()),
        ("kube-api-burst", "1000".into()),
    ];
    let arguments = arguments.map(|(name, value)| format!("--{name}={value}"));
    Program::start(
        resident,
        &assets.join("kube-controller-manager"),
        folder,
        &arguments,
    )
}

/// A folder for one control plane; removed on drop.
///
/// Its path is short, for sockets live in it (at most 107 bytes, unix(7)).
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("waggle-cp-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
