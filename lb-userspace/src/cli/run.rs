//! `waggle run`: everything put together.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya_log::EbpfLogger;
use clap::Args;
use kube::Client;
use lb_common::{DatapathConfig, config::API_THREAD};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use super::{BPF_ROOT, RUN_DIR};
use crate::{
    agent::{self, Agent, Event},
    config::{LogFormat, Settings},
    datapath::{
        self, BpfRoot, Datapath, LoadOptions,
        answers::refusals,
        devices::{
            device::Filter,
            monitor::{Monitor, Options},
            node_device::{NodeDevice, ServeNodeBy},
        },
        events,
        node::kernel,
        object::{contract::ConfiguredCapacities, lock::NodeLock},
        sockets::cgroup::{self, SocketHook},
    },
    findings,
    flows::{strays, sweep},
    health,
    maps::bpf::BpfMaps,
    model::DeviceAddresses,
    probe::KernelAbilities,
    status::server,
    supervise::{Supervisor, Tasks, supervisor},
    watch as sources,
};

/// Where the kernel describes its types, if nothing else is said.
pub(super) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// After SIGTERM, what is still blocked in a system call is left behind after this.
const GRACE: Duration = Duration::from_millis(500);

/// How often the log of the kernel programs is looked at: they say something only when something is wrong.
const KERNEL_LOG_PAUSE: Duration = Duration::from_millis(500);

/// How `run` is called.
#[derive(Args, Debug)]
#[command(after_help = "\
Where Services come from:
  waggle run --manifests examples/my-service          a folder of YAML or JSON files, hot-reloaded
  waggle run --kubeconfig FILE --node-name NAME       a cluster's API server
  waggle run                                          inside a pod: its service account

Which devices:
  waggle run --devices 'eth*,wg0' --pod-interfaces 'cali*'
  waggle run --devices '!docker0'

A restarted agent takes over the maps and programs of the one before it; no packet notices. SIGTERM leaves everything in
place: `waggle cleanup` removes it. Every flag is also a key of the --config file: --api-server is apiServer there.")]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Read settings from this YAML file; flags beat it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the agent until it is told to stop.
pub(super) fn run(arguments: Arguments) -> Result<()> {
    let settings = match &arguments.config {
        Some(file) => arguments.settings.or_file(file)?,
        None => arguments.settings,
    };
    start_log(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(API_THREAD)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime
        .block_on(check(&settings))
        .and_then(|()| Node::start(settings))
        .and_then(|node| runtime.block_on(node.serve()));
    runtime.shutdown_timeout(GRACE);
    result
}

/// What can be known to be wrong before anything is put into the kernel.
async fn check(settings: &Settings) -> Result<()> {
    if let Some(folder) = &settings.manifests {
        std::fs::read_dir(folder).with_context(|| {
            format!(
                "--manifests {} cannot be listed: name a folder with YAML or JSON files",
                folder.display()
            )
        })?;
    }
    if let Some(cgroup) = &settings.cgroup_root {
        cgroup::open(cgroup)?;
    }
    match settings.access() {
        Some(access) => Box::pin(access.check()).await,
        None => Ok(()),
    }
}

/// kube logs each failed request; the agent says the same once, as a warning of its source, until it is over.
const LOG: &str = "info,kube_client=off,notify=warn";

fn start_log(settings: &Settings) -> Result<()> {
    let wanted = settings.log.as_deref().unwrap_or(LOG);
    let filter = log_filter(wanted)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match settings.log_format.unwrap_or_default() {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    // Somebody else's log in the same process is as good.
    drop(started);
    Ok(())
}

/// A single word is a level: as the name of a module, for which it could stand as well, it would silence everything.
fn log_filter(wanted: &str) -> Result<tracing_subscriber::EnvFilter> {
    let is_level = ["off", "error", "warn", "info", "debug", "trace"]
        .iter()
        .any(|level| wanted.eq_ignore_ascii_case(level));
    if !is_level && !wanted.contains('=') && !wanted.contains("::") && !wanted.contains(',') {
        bail!(
            "--log `{wanted}` is no level: write off, error, warn, info, debug or trace, or a filter \
             such as info,lb_userspace::watch=debug"
        );
    }
    tracing_subscriber::EnvFilter::try_new(wanted)
        .with_context(|| format!("--log {wanted} is no filter"))
}

/// Everything that is set up before the loop starts. Dropping it leaves maps, links and programs in place.
struct Node {
    settings: Settings,
    datapath: Datapath,
    agent: Agent<BpfMaps>,
    tasks: Tasks,
    supervisor: Supervisor,
    monitor: Monitor,
    sweeper: sweep::Sweeper,
    cgroup_root: String,
    socket_hooks: Vec<SocketHook>,
    abilities: KernelAbilities,
    run_dir: PathBuf,
    /// Held to the end.
    _lock: NodeLock,
}

impl Node {
    fn start(settings: Settings) -> Result<Self> {
        let btf = settings.btf.as_deref().unwrap_or(Path::new(BTF));
        kernel::require(&kernel::release(), btf)?;
        let object = datapath::object();
        let root = BpfRoot::new(settings.bpf_root.as_deref().unwrap_or(Path::new(BPF_ROOT)));
        let run_dir = settings.run_dir.clone().unwrap_or_else(|| RUN_DIR.into());
        root.prepare()?;
        let lock = NodeLock::acquire(&run_dir, root.path())?;
        let datapath = Datapath::load(
            object,
            &LoadOptions {
                root: root.clone(),
                config: DatapathConfig::DEFAULT,
                capacities: capacities(&settings),
            },
        )?;
        let maps = BpfMaps::open(&root.maps())?;
        let serve_by = settings.node_device.unwrap_or_default();
        let node_device = NodeDevice::open(serve_by);
        let mut of_agent = settings.agent()?;
        of_agent.place.has_node_device = node_device.is_some() && serve_by == ServeNodeBy::Auto;
        of_agent.node_device.clone_from(&node_device);
        let agent = Agent::new(of_agent, maps)?;
        let cgroup_root = match &settings.cgroup_root {
            Some(path) => path.clone(),
            None => cgroup::root()?,
        };
        let socket_hooks = cgroup::attach(&datapath, &cgroup_root)?;
        cgroup::warn(&cgroup_root, &[], &socket_hooks);
        let devices = Options {
            filter: Filter {
                devices: settings.devices.clone(),
                pod_interfaces: settings.pod_interfaces.clone(),
            },
            detect_local: settings.node.place()?.detect_local,
            node_device,
            check_period: settings.device_check_period(),
        };
        let (tasks, supervisor) = supervisor();
        let attach_by = settings.attach.unwrap_or_default();
        let monitor = datapath.attach_to_devices(&run_dir, devices, attach_by, &tasks)?;
        let sweeper = sweep::Sweeper::new(&datapath, settings.timeouts())?;
        let abilities = KernelAbilities::find(btf);
        if !abilities.socket_destroy {
            tracing::warn!(
                "this kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY): connected UDP sockets stay on backends that have left"
            );
        }
        Ok(Self {
            settings,
            datapath,
            agent,
            tasks,
            supervisor,
            monitor,
            sweeper,
            cgroup_root: cgroup_root.display().to_string(),
            socket_hooks,
            abilities,
            run_dir,
            _lock: lock,
        })
    }

    async fn serve(mut self) -> Result<()> {
        let started = tokio::time::Instant::now();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (events, inbox) = mpsc::channel(1024);
        let tasks = self.tasks;
        forward_kernel_log(&mut self.datapath, &tasks);
        events::forward(self.datapath.ebpf_mut(), &tasks);
        refusals::answer(self.datapath.ebpf_mut(), &tasks);
        let (retired, ended) = strays::start(self.datapath.root().maps(), &tasks)
            .context("cannot start the thread that ends sockets")?;
        let (sweep_reports, swept) = watch::channel(sweep::SweepReport::default());
        let sweep = sweep::run(self.sweeper, events.clone(), sweep_reports);
        tasks.spawn("sweep of flows", sweep);
        let health_address = self.settings.healthz_bind_address.unwrap_or_default();
        let health = health::start(self.agent.health(), health_address.0, started, &tasks);
        let clashes = findings::node_ports::start(self.agent.node_ports(), &tasks);
        if let Some(access) = self.settings.access() {
            let found = vec![self.agent.findings(), clashes.clone()];
            tasks.spawn("writer of Events", async move {
                let node_name = access.node_name.clone();
                let client = access.configuration().await;
                match client.and_then(|(config, _)| Ok(Client::try_from(config)?)) {
                    Ok(client) => findings::notice::tell(client, node_name, found).await,
                    Err(error) => {
                        tracing::warn!("no Events are written: {error:#}");
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
        let listener = server::bind(&self.run_dir)
            .with_context(|| format!("cannot listen in {}", self.run_dir.display()))?;
        let socket_hooks = cgroup::keep(
            self.datapath,
            PathBuf::from(&self.cgroup_root),
            self.socket_hooks,
            self.settings.device_check_period(),
            &tasks,
        );
        let state = server::Sources {
            events: events.clone(),
            devices: self.monitor.reports(),
            sweep: swept,
            destroyed_sockets: ended,
            node_name: self.settings.node.node_name(),
            settings: self.settings.node.clone(),
            cgroup_root: self.cgroup_root,
            socket_hooks,
            health,
            clashes,
            kernel: self.abilities,
            started,
        };
        tasks.spawn(
            "server of the agent's socket",
            server::serve(listener, state),
        );
        // The node's addresses come before everything else: the first plan has frontends at all of them.
        let mut addresses = self.monitor.device_addresses();
        let first = Event::DeviceAddresses(addresses.borrow_and_update().clone());
        events.send(first).await.context("the agent's loop")?;
        let addresses = follow_addresses(addresses, events.clone());
        tasks.spawn("watch of the node's addresses", addresses);
        let mut source = tokio::spawn(watch_source(self.settings, events.clone()));
        let mut agent = tokio::spawn(agent::run(self.agent, inbox, retired));
        let result = tokio::select! {
            _ = terminate.recv() => stopped("SIGTERM"),
            _ = interrupt.recv() => stopped("SIGINT"),
            ended = &mut source => match ended {
                Ok(result) => result,
                Err(error) => Err(error.into()),
            },
            error = self.supervisor.ended() => Err(error),
            ended = &mut agent => ended.map(drop).context("the agent's loop has failed"),
        };
        // The loop may be at its end already.
        drop(events.try_send(Event::Stop));
        drop(tokio::time::timeout(GRACE, agent).await);
        result
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one of the ways to end")]
fn stopped(signal: &str) -> Result<()> {
    tracing::info!("{signal}: stopping; what is in the kernel stays and goes on working");
    Ok(())
}

/// Feeds the agent; comes back only if there is no usable configuration, or the agent is gone.
async fn watch_source(settings: Settings, events: mpsc::Sender<Event>) -> Result<()> {
    if let Some(access) = settings.access() {
        return Box::pin(sources::kubernetes::watch(access, events)).await;
    }
    let settle = settings.manifest_settle();
    sources::manifests::watch(settings.manifests.unwrap_or_default(), settle, events).await
}

/// Tells the agent whenever the addresses of the node's devices are others.
async fn follow_addresses(
    mut addresses: watch::Receiver<DeviceAddresses>,
    events: mpsc::Sender<Event>,
) {
    while addresses.changed().await.is_ok() {
        let current = addresses.borrow_and_update().clone();
        if events.send(Event::DeviceAddresses(current)).await.is_err() {
            return;
        }
    }
}

/// Passes what the kernel programs log to this program's log.
fn forward_kernel_log(datapath: &mut Datapath, tasks: &Tasks) {
    let mut logger = match EbpfLogger::init(datapath.ebpf_mut()) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::debug!("the kernel programs have no log: {error}");
            return;
        }
    };
    tasks.spawn("reader of the kernel programs' log", async move {
        let mut pause = tokio::time::interval(KERNEL_LOG_PAUSE);
        loop {
            pause.tick().await;
            logger.flush();
        }
    });
}

fn capacities(settings: &Settings) -> ConfiguredCapacities {
    settings
        .max_flow_entries
        .map(|entries| ConfiguredCapacities::from([("FLOWS_V4", entries), ("FLOWS_V6", entries)]))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for wanted in [
            "info",
            "WARN",
            "off",
            "debug,kube_client=off",
            "lb_userspace::watch",
        ] {
            assert!(log_filter(wanted).is_ok(), "{wanted}");
        }
        for wanted in ["warning", "verbose", "7", ""] {
            let error = log_filter(wanted).err().map(|error| error.to_string());
            assert!(
                error.is_some_and(|it| it.contains("write off, error")),
                "{wanted}"
            );
        }
    }
}
