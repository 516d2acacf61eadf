//! A thread that lives in a network namespace and does there what others ask for.

use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::machine::netns::Namespace;

/// Runs futures in a network namespace, from any thread.
///
/// One thread does all of it, for sockets belong to the namespace of the thread that makes them, and
/// programs end with the thread that started them: they live at most as long as this value.
pub(super) struct Resident {
    namespace: Namespace,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Resident {
    pub(super) fn start(namespace: &Namespace) -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (send, receive) = mpsc::sync_channel(1);
        let thread = namespace.start(move || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            send.send(runtime.handle().clone())?;
            // An error means that the sender is gone, which is the same wish.
            drop(runtime.block_on(stopped));
            Ok(())
        })?;
        let runtime = receive.recv();
        let runtime = runtime.context("the control plane cannot live in its network namespace")?;
        Ok(Self {
            namespace: namespace.clone(),
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The namespace it lives in.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Waits until the future is done over there.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = mpsc::sync_channel(1);
        let task = self.runtime.spawn(async move {
            // Whoever asked waits until this is sent.
            drop(send.send(future.await));
        });
        let result = receive
            .recv()
            .context("a task of the control plane panicked");
        drop(task);
        result?
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has been reported to whoever waited for the task.
            drop(thread.join());
        }
    }
}
