//! Network namespaces without names: a thread makes one, threads and children enter it, and it is
//! gone with the last of them, whatever becomes of the test.
//!
//! Only the network namespace is changed: `/sys`, bpffs and cgroups stay those of the host, which
//! `ip netns exec` would hide.
#![expect(
    unsafe_code,
    reason = "entering a namespace between fork and exec has no safe wrapper"
)]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Settings every namespace starts with: strict reverse path filter, no waiting for duplicate
/// address detection, and addresses may be used at once.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/default/rp_filter", "1"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/ip_local_port_range", "32768 60999"),
];

/// A network namespace; clones share it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes a namespace with `lo` up. `name` appears in messages only.
    pub fn new(name: &str) -> Result<Self> {
        let handle = thread::scope(|scope| {
            let made = scope.spawn(|| -> Result<File> {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                Ok(File::open("/proc/thread-self/ns/net")?)
            });
            joined(made.join())
        })
        .with_context(|| format!("make network namespace {name}"))?;
        let namespace = Self(Arc::new(Inner {
            name: name.to_owned(),
            handle,
        }));
        namespace.ip("link set lo up")?;
        for (key, value) in SYSCTLS {
            namespace.sysctl(key, value)?;
        }
        Ok(namespace)
    }

    /// The namespace of the thread that calls.
    pub fn current() -> Result<Self> {
        let handle = File::open("/proc/thread-self/ns/net").context("open the own namespace")?;
        Ok(Self(Arc::new(Inner {
            name: "the own namespace".to_owned(),
            handle,
        })))
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A path that names the namespace for `nsenter --net=` and `ip link … netns`, while this
    /// process lives.
    pub fn path(&self) -> PathBuf {
        let process = std::process::id();
        let descriptor = self.0.handle.as_raw_fd();
        format!("/proc/{process}/fd/{descriptor}").into()
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it.
    ///
    /// `/proc/net` inside is still the whole process's; read `/proc/thread-self/net`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let running = thread::Builder::new()
                .name(crate::machine::require::test_name())
                .spawn_scoped(scope, || {
                    self.enter()?;
                    work()
                })
                .context("start a thread")?;
            joined(running.join())
        })
    }

    /// Starts `work` on a thread inside the namespace and returns at once.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let namespace = self.clone();
        thread::Builder::new()
            .name(crate::machine::require::test_name())
            .spawn(move || {
                namespace.enter()?;
                work()
            })
            .context("start a thread")
    }

    /// Moves the calling thread into the namespace, for good.
    fn enter(&self) -> Result<()> {
        setns(&self.0.handle, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter network namespace {}", self.0.name))
    }

    /// A command whose process will run inside the namespace, and is told to stop (SIGTERM) when the
    /// thread that spawned it ends: no process outlives its test, even one that is killed.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = self.clone();
        let enter = move || {
            setns(&namespace.0.handle, CloneFlags::CLONE_NEWNET)?;
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls and touches no lock and
        // no heap; the descriptor lives as long as the command.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a program to its end inside the namespace; its standard output, or an error that quotes
    /// what it said.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.output_of(program, arguments, "")
    }

    /// The same with text on standard input.
    pub fn output_of(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let what = || format!("{program} {} in {}", arguments.join(" "), self.0.name);
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(what)?;
        let written = match child.stdin.take() {
            Some(mut pipe) => pipe.write_all(input.as_bytes()),
            None => Ok(()),
        };
        let output = child.wait_with_output().with_context(what)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}\n{input}", what(), output.status, said.trim());
        }
        written.with_context(what)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Carries out lines of iproute2's `ip` in one process; stops at the first that fails.
    pub fn ip(&self, lines: &str) -> Result<String> {
        self.output_of("ip", &["-batch", "-"], lines)
    }

    /// Loads a ruleset of `nft`.
    pub fn nft(&self, ruleset: &str) -> Result<String> {
        self.output_of("nft", &["-f", "-"], ruleset)
    }

    /// Sets `/proc/sys/<key>` as the namespace sees it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.run(|| {
            fs::write(&path, value).with_context(|| format!("write {value} to {path}"))?;
            Ok(())
        })
        .with_context(|| format!("in {}", self.0.name))
    }
}

/// What a thread returned; its panic goes on in the thread that waited.
pub(crate) fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    match result {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
