//! The agent's own program, `waggle`, run on a node of a test's cluster.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::Counter;
use nix::sys::signal::Signal;

use crate::cluster::topology::Node;
use crate::machine::process::Process;
use crate::machine::scratch::{Scratch, unique_tag};
use crate::now;

/// How long the agent may take to be ready, in an emulated machine on a busy host.
const READY_WITHIN: Duration = Duration::from_mins(4);

/// How long the agent may take to follow a change of its source.
const FOLLOWS_WITHIN: Duration = Duration::from_mins(1);

/// Where pinned objects live.
const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";

/// The program: `WAGGLE_BIN`, else beside the folder of the test's own executable.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WAGGLE_BIN") {
        return Ok(path.into());
    }
    let own = env::current_exe().context("the path of the test's executable")?;
    let mut folders = own.ancestors().skip(1);
    let found = folders.find_map(|folder| {
        let path = folder.join("waggle");
        path.is_file().then_some(path)
    });
    found.with_context(|| {
        format!(
            "no waggle beside {}: cargo build -p lb-userspace, or name it in WAGGLE_BIN",
            own.display()
        )
    })
}

/// An agent on a node; dropping it removes all it has put into the kernel (`waggle cleanup`).
#[derive(Debug)]
pub struct Agent {
    node: Node,
    program: PathBuf,
    /// What starts the program, if it does not start by itself.
    launcher: Vec<OsString>,
    source: Vec<OsString>,
    extra: Vec<OsString>,
    bpf_root: PathBuf,
    scratch: Scratch,
    process: Option<Process>,
}

impl Agent {
    /// Starts the agent of `node` and waits until it is ready. `source` names where it reads from
    /// ([`crate::cluster::cluster_state::ClusterState::agent_arguments`]).
    pub fn start(node: &Node, source: Vec<OsString>) -> Result<Self> {
        Self::start_with(node, source, Vec::new())
    }

    /// The same on several nodes, all at a time: each waits for the kernel to look through its programs.
    pub fn start_all(nodes: &[Node], source: &[OsString]) -> Result<Vec<Self>> {
        let new = |node| Self::new(Vec::new(), node, source.to_vec(), Vec::new());
        let mut agents: Vec<Self> = nodes.iter().map(new).collect::<Result<_>>()?;
        for agent in &mut agents {
            agent.begin()?;
        }
        for agent in &mut agents {
            agent.wait_until_ready()?;
        }
        Ok(agents)
    }

    /// The same, with further arguments.
    pub fn start_with(node: &Node, source: Vec<OsString>, extra: Vec<OsString>) -> Result<Self> {
        Self::start_by(Vec::new(), node, source, extra)
    }

    /// Starts the agent as in a pod: `/var/run` is another folder there, and the environment tells of
    /// this API server. It reads from where it finds itself, with further arguments.
    pub fn start_in_pod(
        node: &Node,
        var_run: &Path,
        api_server: SocketAddr,
        extra: Vec<OsString>,
    ) -> Result<Self> {
        let launcher = [
            "env".into(),
            format!("KUBERNETES_SERVICE_HOST={}", api_server.ip()).into(),
            format!("KUBERNETES_SERVICE_PORT={}", api_server.port()).into(),
            // One process from here to the agent: whoever ends the first ends the last.
            "unshare".into(),
            "-m".into(),
            "sh".into(),
            "-c".into(),
            "mount --make-rprivate / && mount --bind \"$0\" /var/run && exec \"$@\"".into(),
            var_run.into(),
        ];
        Self::start_by(launcher.to_vec(), node, Vec::new(), extra)
    }

    fn start_by(
        launcher: Vec<OsString>,
        node: &Node,
        source: Vec<OsString>,
        extra: Vec<OsString>,
    ) -> Result<Self> {
        let mut agent = Self::new(launcher, node, source, extra)?;
        agent.launch()?;
        Ok(agent)
    }

    fn new(
        launcher: Vec<OsString>,
        node: &Node,
        source: Vec<OsString>,
        extra: Vec<OsString>,
    ) -> Result<Self> {
        mount_bpf_file_system()?;
        Ok(Self {
            node: node.clone(),
            program: program()?,
            launcher,
            source,
            extra,
            bpf_root: Path::new(BPF_FILE_SYSTEM).join(unique_tag()),
            scratch: Scratch::new()?,
            process: None,
        })
    }

    /// Starts the process (again) and waits until it is ready.
    pub fn launch(&mut self) -> Result<()> {
        self.begin()?;
        self.wait_until_ready()
    }

    fn begin(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let own = self.command("run");
        let mut command = match self.launcher.split_first() {
            Some((first, rest)) => {
                let mut command = self.node.namespace.command(first);
                command.args(rest).arg(own.get_program());
                command.args(own.get_args());
                command
            }
            None => own,
        };
        command.args(&self.source);
        command.args(&self.extra);
        command.args(["--node-name", &self.node.name()]);
        let addresses = [self.node.v4().to_string(), self.node.v6().to_string()];
        command.args(addresses.iter().flat_map(|it| ["--node-ip", it]));
        let name = format!("waggle of {}", self.node.name());
        let process = Process::start(&name, command, &self.scratch.path().join("log"))?;
        self.process = Some(process);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.wait_until(READY_WITHIN, || {
            sleep(Duration::from_millis(20));
            Ok(self.is_ready())
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        // `status` reads every map: it is asked only once somebody can answer.
        if !self.run_dir().join("agent.sock").exists() {
            return false;
        }
        let mut status = self.command("status");
        status.output().is_ok_and(|output| output.status.success())
    }

    /// A command `waggle <word>` in the node's namespace with this agent's paths.
    fn command(&self, word: &str) -> Command {
        let mut command = self.node.namespace.command(&self.program);
        command.arg(word);
        command.arg("--bpf-root").arg(&self.bpf_root);
        command.arg("--run-dir").arg(self.run_dir());
        command
    }

    /// The flags that name this agent, for messages to a person.
    pub fn flags(&self) -> String {
        let (root, run) = (self.bpf_root.display(), self.run_dir());
        format!("--bpf-root {root} --run-dir {}", run.display())
    }

    fn run_dir(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    /// The node it serves.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Where it pins its maps and links.
    pub fn bpf_root(&self) -> &Path {
        &self.bpf_root
    }

    /// All the agent has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// What `waggle <words>` prints, for instance `get services -o wide`.
    pub fn waggle(&self, words: &str) -> Result<String> {
        let mut words = words.split_whitespace();
        let mut command = self.command(words.next().unwrap_or_default());
        command.args(words);
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{command:?}: {}: {text}{said}", output.status);
        }
        Ok(text)
    }

    /// How often its datapath has counted something.
    pub fn counted(&self, counter: Counter) -> Result<u64> {
        let status: serde_json::Value = serde_json::from_str(&self.waggle("status -o json")?)?;
        let counters = status["counters"].as_array().context("counters")?;
        let entry = counters.iter().find(|it| it["name"] == counter.name());
        let value = entry.and_then(|entry| entry["value"].as_u64());
        Ok(value.unwrap_or_default())
    }

    /// Waits until `waggle <words>` prints something that `is_as_wanted`.
    pub fn wait_until(&self, words: &str, is_as_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let begin = now();
        loop {
            let text = self.waggle(words)?;
            if is_as_wanted(&text) {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < FOLLOWS_WITHIN,
                "after {FOLLOWS_WITHIN:?} `waggle {words}` on {} still says\n{text}",
                self.node.name()
            );
            sleep(Duration::from_millis(10));
        }
    }

    /// Ends the agent as a service manager does (SIGTERM); the datapath stays.
    pub fn terminate(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(Signal::SIGTERM)?;
            ensure!(status.success(), "the agent ended with {status}");
        }
        Ok(())
    }

    /// Ends the agent as a crash does (SIGKILL); the datapath stays.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// Removes all that the agent has put into the kernel.
    pub fn cleanup(&self) -> Result<()> {
        self.waggle("cleanup")?;
        Ok(())
    }

    /// What a person needs to understand a failed test.
    pub fn report(&self) -> String {
        let mut report = format!(
            "---- log of the agent of {}:\n{}",
            self.node.name(),
            self.log()
        );
        for words in [
            "status",
            "get services -o wide",
            "get backends",
            "get flows",
        ] {
            let text = self
                .waggle(words)
                .unwrap_or_else(|error| format!("{error:#}"));
            report.extend(["---- waggle ", words, ":\n", &text, "\n"]);
        }
        report
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.process.take());
        drop(self.cleanup());
        // What a failed clean-up leaves is in this folder, and pins are all that keeps it alive.
        drop(fs::remove_dir_all(&self.bpf_root));
    }
}

/// Mounts bpffs where the kernel's tools expect it, if nobody has.
fn mount_bpf_file_system() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let is_mounted = mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(BPF_FILE_SYSTEM));
    if !is_mounted {
        let none = None::<&str>;
        mount(none, BPF_FILE_SYSTEM, Some("bpf"), MsFlags::empty(), none)
            .with_context(|| format!("mount bpf at {BPF_FILE_SYSTEM}"))?;
    }
    Ok(())
}
