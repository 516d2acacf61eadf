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
    datapath::devices::node_device::ServeNodeBy,
    datapath::devices::pattern::Patterns,
    watch::kubernetes::Access,
};

/// The settings as given: what is `None` was not given and has its default.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Read Services, Pods, EndpointSlices and Endpoints from the YAML and JSON files in this folder and its
    /// subfolders, and follow changes. No API server is used
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "api_server"])]
    pub manifests: Option<PathBuf>,

    /// Kubeconfig file. If neither this nor --manifests is set, the agent uses the service account of its pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Address of the API server, overriding the kubeconfig. It must not depend on this agent: the ClusterIP of the
    /// `kubernetes` Service works only after the agent has read it from the API server
    #[arg(long, value_name = "URL")]
    pub api_server: Option<String>,

    /// The node.
    #[command(flatten)]
    #[serde(flatten, skip_deserializing)]
    pub node: NodeOptions,

    /// How long changes that follow each other are collected between two plans. The first change after a quiet period
    /// is applied at once [default: 5ms]
    #[arg(long, value_name = "TIME")]
    pub collect_changes: Option<Period<0>>,

    /// How long to wait after the last change of a file in the manifest folder before reading it: editors write files
    /// in several steps [default: 20ms]
    #[arg(long, value_name = "TIME")]
    pub manifest_settle: Option<Period<1>>,

    /// How long the old list of backends stays in the map after a Service got a new one; at least 1s, so that no
    /// packet in flight reads the list of another Service [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub region_rest: Option<Period<1_000>>,

    /// How long after a terminating endpoint left all slices its pod is considered gone. A client that then opens a
    /// connection from a port that it used with this pod gets another backend [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub gone_grace: Option<Period<0>>,

    /// First delay after a failed write to a map; doubles up to --backoff-limit [default: 50ms]
    #[arg(long, value_name = "TIME")]
    pub backoff: Option<Period<1>>,

    /// Longest delay after a failed write to a map [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub backoff_limit: Option<Period<1>>,

    /// How long to wait for the first list of objects before `status` reports what is missing. Nothing is removed
    /// from the maps before all sources have listed their objects [default: 15s]
    #[arg(long, value_name = "TIME")]
    pub list_timeout: Option<Period<100>>,

    /// Attach to the node's own devices (uplinks, tunnels, bridges) whose names match these patterns, separated by
    /// commas, for example `eth*,wg0,!eth9` [default: all but lo]
    #[arg(long, value_name = "PATTERNS")]
    pub devices: Option<Patterns>,

    /// Attach to the host side of pod interfaces (veth, netkit) whose names match these patterns. A name that matches
    /// --devices or --pod-interfaces is selected whatever its kind [default: all]
    #[arg(long, value_name = "PATTERNS")]
    pub pod_interfaces: Option<Patterns>,

    /// How to attach to devices [default: auto]
    #[arg(long, value_enum, value_name = "HOW")]
    pub attach: Option<AttachBy>,

    /// How processes of the node are served over UDP and SCTP [default: auto]
    #[arg(long, value_enum, value_name = "HOW")]
    pub node_device: Option<ServeNodeBy>,

    /// How often attachments are checked. Changes that the kernel reports are handled at once; it does not report
    /// that another program was detached [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub device_check_period: Option<Period<100>>,

    /// Directory on a BPF file system where maps and links are pinned [default: /sys/fs/bpf/waggle]
    #[arg(long, value_name = "DIR")]
    pub bpf_root: Option<PathBuf>,

    /// Directory of the agent's lock and socket [default: /run/waggle]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Address and port for /healthz and /livez, compatible with kube-proxy. If empty, they are not served [default:
    /// 0.0.0.0:10256]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub healthz_bind_address: Option<HealthzAddress>,

    /// Root of the cgroup v2 hierarchy, where the socket hooks are attached [default: the first cgroup2 mount]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    /// BTF of the kernel [default: /sys/kernel/btf/vmlinux]
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,

    /// Maximum number of entries in each table of proven flows, one for IPv4 and one for IPv6. A flow takes two
    /// entries, a masqueraded flow four; UDP flows take at most half of them [default: 262144]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_flow_entries: Option<u32>,

    /// Idle timeout of established TCP flows. This and the following timeouts are rounded up to seconds; 0s selects
    /// the default [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub conntrack_tcp_timeout_established: Option<Timeout>,

    /// Idle timeout of TCP flows that one end has closed [default: 1h]
    #[arg(long, value_name = "TIME")]
    pub conntrack_tcp_timeout_close_wait: Option<Timeout>,

    /// Idle timeout of TCP flows that both ends have closed or one has reset [default: 120s]
    #[arg(long, value_name = "TIME")]
    pub conntrack_tcp_timeout_closed: Option<Timeout>,

    /// Idle timeout of UDP flows with packets in both directions [default: 180s]
    #[arg(long, value_name = "TIME")]
    pub conntrack_udp_timeout_stream: Option<Timeout>,

    /// Idle timeout of UDP flows without an answer. TCP and SCTP flows that were not established are removed after
    /// 60s [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub conntrack_udp_timeout: Option<Timeout>,

    /// Log level (error, warn, info, debug, trace) or filter, for example `info,lb_userspace::datapath=debug`
    /// [default: `info,kube_client=off`]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,

    /// Log format [default: text]
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
            node_device: None,
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
