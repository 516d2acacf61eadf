//! What a person gets to see: the agent's part comes through its socket, the kernel's part from the pinned maps.
pub mod client;
pub mod fill;
pub mod server;

use serde::{Deserialize, Serialize};

pub use crate::datapath::object::lock::SOCKET;
use crate::{
    agent::View,
    config::NodeOptions,
    datapath::{devices::monitor::DeviceReport, sockets::cgroup::SocketHook},
    flows::sweep::SweepReport,
    model::Warning,
    probe::KernelAbilities,
};

/// What a running agent says of itself: `GET /v1/state` on its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentState {
    /// This program's version.
    pub version: String,
    /// The agent's process.
    pub pid: u32,
    /// The node it serves.
    pub node_name: String,
    /// What it was told of the node when it was started.
    #[serde(default)]
    pub settings: NodeOptions,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// What it knows of Services, and how far the maps are behind.
    pub view: View,
    /// The devices of its network namespace.
    pub devices: Vec<DeviceReport>,
    /// Where the socket hooks hang.
    pub cgroup_root: String,
    /// The socket hooks.
    pub socket_hooks: Vec<SocketHook>,
    /// The sweep of the flow tables.
    pub sweep: SweepReport,
    /// UDP sockets ended because their backend had left.
    pub destroyed_sockets: u64,
    /// What the kernel can do.
    pub kernel: KernelAbilities,
    /// What of the node's set-up keeps services from working.
    pub node_warnings: Vec<Warning>,
}

impl AgentState {
    /// Whether every source has said what there is, the maps follow but for what was refused, and every hook hangs
    /// where it ought to.
    pub fn is_ready(&self) -> bool {
        self.obstacles().is_empty()
    }

    /// Why it is not ready.
    pub fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        let view = &self.view;
        if view.sources.is_empty() {
            obstacles.push("there is no source".to_owned());
        }
        for source in view.sources.iter().filter(|source| !source.listed) {
            obstacles.push(format!("{} have not been listed yet", source.source));
        }
        if !view.settled {
            obstacles.push(format!("the maps are {} services behind", view.pending));
        }
        for device in &self.devices {
            for hook in device.hooks.iter().filter(|hook| hook.how.is_none()) {
                let why = hook.error.as_deref().unwrap_or("nobody knows why");
                let side = hook.direction.name();
                obstacles.push(format!("not attached to {} {side}: {why}", device.name));
            }
        }
        for hook in self.socket_hooks.iter().filter(|hook| !hook.attached) {
            let why = hook.error.as_deref().unwrap_or("nobody knows why");
            let root = &self.cgroup_root;
            obstacles.push(format!("{} not attached to {root}: {why}", hook.name));
        }
        if let Some(error) = &self.sweep.error {
            obstacles.push(format!("silent flows are not forgotten: {error}"));
        }
        obstacles
    }
}

/// `waggle status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The agent, if it runs.
    pub agent: Option<AgentState>,
    /// Why nothing is known of the agent.
    pub agent_missing: Option<String>,
    /// Links that are pinned: `2-ingress`, `connect4`; they work without the agent.
    pub pinned_links: Vec<String>,
    /// How full the maps are.
    pub maps: Vec<fill::MapFill>,
    /// What the kernel programs have counted, but for zeros.
    pub counters: Vec<fill::CounterValue>,
    /// What of this could not be read, and why; what is not there is not among it.
    pub unreadable: Vec<String>,
    /// What is not supported in this version.
    pub unsupported: Vec<String>,
}

/// What a user of Services may miss.
pub const UNSUPPORTED: &[&str] = &[
    "SCTP from processes of the node: the kernel has no hook for their sockets",
    "SCTP packets in IP fragments",
    "pods' traffic that a CNI redirects past the node's side of the pod's interface (bpf_redirect_peer)",
];

#[cfg(test)]
mod tests;
