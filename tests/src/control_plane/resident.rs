//! A thread that lives in a network namespace and does there what others ask for.

use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Runs futures and starts programs in a network namespace, from any thread.
///
/// One thread does all of it, for sockets and programs belong to the namespace of the thread that
/// makes them, and a program is killed with the thread that started it. Programs started here
/// live at most as long as this value.
pub(super) struct Resident {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Resident {
    /// Without a namespace the thread stays in that of the caller.
    pub(super) fn start(namespace: Option<OwnedFd>) -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (send, receive) = mpsc::sync_channel(1);
        let live = move || {
            let begun = (|| {
                if let Some(namespace) = namespace {
                    setns(namespace, CloneFlags::CLONE_NEWNET)
                        .context("cannot enter the network namespace of the control plane")?;
                }
                Ok::<_, anyhow::Error>(Builder::new_current_thread().enable_all().build()?)
            })();
            match begun {
                Ok(runtime) => {
                    if send.send(Ok(runtime.handle().clone())).is_ok() {
                        // An error means that the sender is gone, which is the same wish.
                        drop(runtime.block_on(stopped));
                    }
                }
                Err(error) => drop(send.send(Err(error))),
            }
        };
        let thread = thread::Builder::new()
            .name("control-plane".into())
            .spawn(live)?;
        let runtime = receive
            .recv()
            .context("the control plane's thread is gone")??;
        Ok(Self {
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Waits until the future is done over there.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = mpsc::sync_channel(1);
        let task = self
            .runtime
            .spawn(async move { drop(send.send(future.await)) });
        let result = receive
            .recv()
            .context("a task of the control plane panicked");
        drop(task);
        result?
    }

    /// Starts a program over there.
    pub(super) fn spawn(&self, mut command: Command) -> Result<Child> {
        self.run(async move { Ok(command.spawn()?) })
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has been reported by whoever waited for the task.
            drop(thread.join());
        }
    }
}
