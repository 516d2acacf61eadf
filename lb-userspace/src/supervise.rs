//! All tasks and threads that the agent consists of belong to one supervisor: it cannot work without any of them, so when
//! one ends, the agent ends as well, with an error that names it. What is in the kernel goes on working, and whoever
//! started the agent starts it again.
use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::JoinHandle,
};

use anyhow::{Error, anyhow};
use tokio::sync::mpsc;

/// Starts tasks and threads.
#[derive(Clone, Debug)]
pub struct Tasks(mpsc::UnboundedSender<Ended>);

/// Hears of those that have ended.
#[derive(Debug)]
pub struct Supervisor(mpsc::UnboundedReceiver<Ended>);

#[derive(Debug)]
struct Ended {
    name: &'static str,
    /// What its panic said; `None` if it came to its end.
    panic: Option<String>,
}

/// A supervisor, and what starts its tasks and threads.
pub fn supervisor() -> (Tasks, Supervisor) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Tasks(sender), Supervisor(receiver))
}

impl Tasks {
    /// Starts a task; within a tokio runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.0.clone();
        let task = tokio::spawn(task);
        drop(tokio::spawn(async move {
            let panic = match task.await {
                Ok(()) => None,
                Err(error) if error.is_panic() => Some(message(&*error.into_panic())),
                // The runtime is ending.
                Err(_) => return,
            };
            drop(ended.send(Ended { name, panic }));
        }));
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// If the kernel has none to give.
    pub fn thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let ended = self.0.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            let panic = result.err().map(|panic| message(&*panic));
            // While the agent ends nobody listens.
            drop(ended.send(Ended { name, panic }));
        })
    }
}

impl Supervisor {
    /// Waits until one has ended; the error of the agent, which names it.
    pub async fn ended(&mut self) -> Error {
        match self.0.recv().await {
            Some(Ended { name, panic }) => {
                let cause = panic.map_or_else(
                    || "it came to its end".to_owned(),
                    |panic| format!("it panicked: {panic}"),
                );
                anyhow!(
                    "the agent's {name} has ended, and the agent cannot work without it: {cause}"
                )
            }
            // Nobody can start or end anything any more.
            None => std::future::pending().await,
        }
    }
}

/// The words of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a word").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_or_thread_that_ends_is_named_with_its_cause() {
        let (tasks, mut supervisor) = supervisor();
        tasks.spawn("quiet task", std::future::pending());
        tasks.spawn("loud task", async { panic!("no {}", "route") });
        let error = supervisor.ended().await.to_string();
        assert!(
            error.contains("loud task") && error.contains("no route"),
            "{error}"
        );
        tasks
            .thread("thread", || panic!("no socket"))
            .unwrap()
            .join()
            .unwrap();
        let error = supervisor.ended().await.to_string();
        assert!(
            error.contains("thread") && error.contains("no socket"),
            "{error}"
        );
        tasks.spawn("short task", async {});
        let error = supervisor.ended().await.to_string();
        assert!(
            error.contains("short task") && error.contains("came to its end"),
            "{error}"
        );
    }
}
