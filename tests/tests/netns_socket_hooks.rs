//! The socket hooks stay attached, and `waggle status` says so when they are not.
use std::{fs, path::PathBuf, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::datapath::sockets::cgroup;
use serde_json::Value;
use tests::{cluster::agent_without_services::LoneAgent, now, require_root};

/// What no machine needs, however many tests it runs.
const MUCH: Duration = Duration::from_mins(1);

/// A cgroup that vanishes with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let path = cgroup::root()?.join(format!("waggle-test-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

fn hooks(node: &LoneAgent) -> Result<Vec<Value>> {
    // Of a node that is not ready, status fails; what it printed is in the error.
    let text = node
        .agent
        .waggle("status -o json")
        .unwrap_or_else(|error| error.to_string());
    let (begin, end) = (text.find('{').unwrap_or(0), text.rfind('}').unwrap_or(0));
    let status: Value = serde_json::from_str(text.get(begin..=end).unwrap_or_default())?;
    let hooks = status["agent"]["socketHooks"].as_array();
    hooks.cloned().context("no socketHooks in the status")
}

fn wait_for(node: &LoneAgent, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    let begin = now();
    loop {
        let hooks = hooks(node)?;
        if !hooks.is_empty() && hooks.iter().all(&wanted) {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < MUCH,
            "after {MUCH:?} not all hooks are {what}: {hooks:?}\n{}",
            node.agent.report()
        );
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn hooks_whose_cgroup_vanishes_are_attached_again_when_it_is_back() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let cgroup = Cgroup::new()?;
    let path = cgroup.0.display().to_string();
    let node = LoneAgent::start(&["--cgroup-root", &path, "--device-check-period", "200ms"])?;
    wait_for(&node, "attached", |hook| hook["attached"] == true)?;
    fs::remove_dir(&cgroup.0)?;
    wait_for(&node, "told of with an error", |hook| {
        hook["attached"] == false && hook["error"].as_str().is_some_and(|it| it.contains(&path))
    })?;
    fs::create_dir(&cgroup.0)?;
    wait_for(&node, "attached again", |hook| {
        hook["attached"] == true && hook["error"].is_null()
    })
}
