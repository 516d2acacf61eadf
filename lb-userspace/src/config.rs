//! Every setting of `waggle run`: its name, its default, its reason.
//!
//! One struct is both the command line (clap) and the file of `--config` (YAML, read by serde). A flag `--api-server`
//! is the key `apiServer` in the file; a flag beats the file. A key that does not exist is an error that names it.
mod healthz;
mod keys;
mod node;
mod period;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use lb_common::config::Timeouts;
use serde::{Deserialize, Serialize};

pub use healthz::HealthzAddress;
pub use node::{Address, DetectLocalMode, NodeOptions, Prefix};
pub use period::{Period, Timeout};

use crate::{
    agent::{self, Source},
    datapath::devices::attach::AttachBy,
    datapath::devices::pattern::Patterns,
    watch::kubernetes::Access,
};

/// The settings as given: what is `None` was not given and has its default.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Read Services, Pods, EndpointSlices and Endpoints from the YAML and JSON files in this folder and below, and
    /// follow their changes. No API server is asked.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "api_server"])]
    pub manifests: Option<PathBuf>,

    /// How to reach the API server. Without this and without --manifests: the service account of the pod that the
    /// agent runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Address of the API server, in place of the configured one. Give an address that does not depend on this agent:
    /// the `kubernetes` Service's own ClusterIP works only after the agent has read it from the API server.
    #[arg(long, value_name = "URL")]
    pub api_server: Option<String>,

    /// The node.
    #[command(flatten)]
    #[serde(flatten, skip_deserializing)]
    pub node: NodeOptions,

    /// While changes keep coming they are collected for so long between two plans; the first change after a quiet time
    /// is always applied at once [default: 5ms]
    #[arg(long, value_name = "TIME")]
    pub collect_changes: Option<Period<0>>,

    /// After the last change of a file in the manifest folder, wait so long before reading it: editors write a file in
    /// several steps [default: 20ms]
    #[arg(long, value_name = "TIME")]
    pub manifest_settle: Option<Period<1>>,

    /// How long an old list of backends stays in the map after a service has a new one; at least 1s, so that no packet
    /// in flight meets a foreign list [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub region_rest: Option<Period<1_000>>,

    /// How long after a terminating endpoint has left all slices its pod counts as gone. Nothing is reset then: a
    /// client that opens a connection from the port of one it had with that pod gets another backend [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub gone_grace: Option<Period<0>>,

    /// First pause after a map could not be written; doubled up to --backoff-limit [default: 50ms]
    #[arg(long, value_name = "TIME")]
    pub backoff: Option<Period<1>>,

    /// Longest pause after a map could not be written [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub backoff_limit: Option<Period<1>>,

    /// After so long without a first list, `status` says what the agent is waiting for. Nothing is removed from the
    /// maps before every source has listed, however long that takes [default: 15s]
    #[arg(long, value_name = "TIME")]
    pub list_timeout: Option<Period<100>>,

    /// Attach to those of the node's own devices (uplinks, tunnels, bridges) whose names match: patterns separated by
    /// commas, as in `eth*,wg0,!eth9` [default: all but lo]
    #[arg(long, value_name = "PATTERNS")]
    pub devices: Option<Patterns>,

    /// Attach to those of the node's sides of pods' interfaces (veth, netkit) whose names match; a name that --devices
    /// or --pod-interfaces gives is taken whatever it is [default: all]
    #[arg(long, value_name = "PATTERNS")]
    pub pod_interfaces: Option<Patterns>,

    /// How to attach to devices [default: auto]
    #[arg(long, value_enum, value_name = "HOW")]
    pub attach: Option<AttachBy>,

    /// How often everything that hangs on devices is looked at again: against somebody who removes what is ours, of
    /// which the kernel tells nobody. What the kernel does tell is seen at once [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub device_check_period: Option<Period<100>>,

    /// Where maps and links are pinned, on a BPF file system [default: /sys/fs/bpf/waggle]
    #[arg(long, value_name = "DIR")]
    pub bpf_root: Option<PathBuf>,

    /// The agent's lock and its socket are here [default: /run/waggle]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Where /healthz and /livez are answered as kube-proxy answers them; nowhere if it is empty
    /// [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub healthz_bind_address: Option<HealthzAddress>,

    /// Root of the cgroup v2 hierarchy, where the socket hooks go [default: the first cgroup2 mount]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    /// Where the kernel describes its types [default: /sys/kernel/btf/vmlinux]
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,

    /// How many entries each table of proven flows holds, one for IPv4 and one for IPv6; a plain flow takes two, a
    /// masqueraded one four [default: 262144]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_flow_entries: Option<u32>,

    /// Forget an established TCP flow after this long without a packet. This and the timeouts below are rounded up to
    /// whole seconds, and 0s stands for the default [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub conntrack_tcp_timeout_established: Option<Timeout>,

    /// Forget a TCP flow that one end has closed after this long without a packet [default: 1h]
    #[arg(long, value_name = "TIME")]
    pub conntrack_tcp_timeout_close_wait: Option<Timeout>,

    /// Forget a TCP flow that both ends have closed, or that was reset, after this long [default: 120s]
    #[arg(long, value_name = "TIME")]
    pub conntrack_tcp_timeout_closed: Option<Timeout>,

    /// Forget a UDP flow that has seen packets both ways after this long without one [default: 180s]
    #[arg(long, value_name = "TIME")]
    pub conntrack_udp_timeout_stream: Option<Timeout>,

    /// Forget a UDP flow that nobody has answered after this long without a packet; one over TCP or SCTP that has not come
    /// about goes after 60s [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub conntrack_udp_timeout: Option<Timeout>,

    /// What to log: error, warn, info, debug, trace, or a filter as `info,lb_userspace::datapath=debug`
    /// [default: `info,kube_client=off`]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,

    /// How to log [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

impl Settings {
    /// These settings, and where they say nothing those of a file.
    ///
    /// # Errors
    /// If the file cannot be read or says something that is no setting: the error names file, key and line.
    pub fn or_file(self, file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!(
                "{} cannot be read: check the path after --config",
                file.display()
            )
        })?;
        let from_file = keys::read(&text).with_context(|| {
            format!(
                "{} is no list of settings: `waggle run --help` names them all",
                file.display()
            )
        })?;
        self.or(&from_file)
    }

    /// These settings, and where they say nothing the others.
    ///
    /// # Errors
    /// If they exclude each other.
    pub fn or(self, others: &Self) -> anyhow::Result<Self> {
        let mut merged = serde_json::to_value(others)?;
        let given = serde_json::to_value(self)?;
        if let (Some(merged), serde_json::Value::Object(given)) = (merged.as_object_mut(), given) {
            merged.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
        }
        let merged = Self {
            node: serde_json::from_value(merged.clone())?,
            ..serde_json::from_value(merged)?
        };
        if merged.max_flow_entries.is_some_and(|it| it < 1024) {
            bail!("maxFlowEntries is too small: write 1024 or more");
        }
        if merged.manifests.is_some()
            && (merged.kubeconfig.is_some() || merged.api_server.is_some())
        {
            bail!(
                "manifests excludes kubeconfig and apiServer: a folder or an API server, not both"
            );
        }
        Ok(merged)
    }

    /// When silent flows are forgotten.
    pub fn timeouts(&self) -> Timeouts {
        let or = |given: Option<Timeout>, default| {
            given.map_or(default, |given| given.seconds_or(default))
        };
        let default = Timeouts::DEFAULT;
        Timeouts {
            tcp_established: or(
                self.conntrack_tcp_timeout_established,
                default.tcp_established,
            ),
            tcp_close_wait: or(
                self.conntrack_tcp_timeout_close_wait,
                default.tcp_close_wait,
            ),
            tcp_closed: or(self.conntrack_tcp_timeout_closed, default.tcp_closed),
            udp_stream: or(self.conntrack_udp_timeout_stream, default.udp_stream),
            udp: or(self.conntrack_udp_timeout, default.udp),
        }
    }

    /// How often devices are looked at again: two questions a device are nothing that anybody would notice, on a node
    /// with hundreds of them.
    pub fn device_check_period(&self) -> Duration {
        or(self.device_check_period, 30_000)
    }

    /// What the agent's loop needs of them.
    ///
    /// # Errors
    /// As [`NodeOptions::place`].
    pub fn agent(&self) -> anyhow::Result<agent::Settings> {
        let sources = if self.manifests.is_some() {
            BTreeSet::from([Source::Manifests])
        } else {
            BTreeSet::from([
                Source::Services,
                Source::EndpointSlices,
                Source::Node,
                Source::ServiceCidrs,
            ])
        };
        Ok(agent::Settings {
            place: self.node.place()?,
            sources,
            // A plan for one Service takes well under a millisecond: this bounds the share of the processor that a
            // storm of changes takes, and is far below what people notice.
            collect: or(self.collect_changes, 5),
            // A program reads a region within microseconds; a second is for machines that stand still for a moment.
            region_rest: or(self.region_rest, 2_000),
            // Kubernetes' own default grace period for a pod's end.
            gone_grace: or(self.gone_grace, 30_000),
            // The first try again is quick, for most faults pass; a fault that stays is not worth a busy processor.
            backoff: (or(self.backoff, 50), or(self.backoff_limit, 10_000)),
            list_timeout: or(self.list_timeout, 15_000),
        })
    }

    /// How long the manifest folder has to be quiet before it is read: longer than an editor's pause between two
    /// writes of one file, shorter than anybody waits for.
    pub fn manifest_settle(&self) -> Duration {
        or(self.manifest_settle, 20)
    }

    /// How to reach the API server, if there is to be one.
    pub fn access(&self) -> Option<Access> {
        self.manifests.is_none().then(|| Access {
            kubeconfig: self.kubeconfig.clone(),
            api_server: self.api_server.clone(),
            node_name: self.node.node_name(),
        })
    }
}

fn or<const LEAST: u64>(period: Option<Period<LEAST>>, milliseconds: u64) -> Duration {
    period.map_or(Duration::from_millis(milliseconds), Period::duration)
}

#[cfg(test)]
mod tests;
