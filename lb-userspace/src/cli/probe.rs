//! `waggle probe`.
use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use super::{Format, Paths, table::Rows};
use crate::datapath::{
    devices::{
        device::{Filter, Layer},
        pattern::Patterns,
    },
    node::kernel,
};
use crate::probe::{self, KernelAbilities};

/// What `probe` is asked.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// As for `waggle run`
    #[arg(long, value_name = "PATTERNS")]
    devices: Option<Patterns>,
    /// As for `waggle run`
    #[arg(long, value_name = "PATTERNS")]
    pod_interfaces: Option<Patterns>,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    kernel: KernelAbilities,
    may_load: bool,
    bpf_file_system: bool,
    devices: Vec<DeviceProbe>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceProbe {
    index: u32,
    name: String,
    kind: String,
    layer: Option<Layer>,
    bridge_port: bool,
    would_attach: String,
}

/// Prints what could be done here.
pub(super) fn probe(arguments: &Arguments) -> Result<()> {
    let kernel = KernelAbilities::find(std::path::Path::new(super::run::BTF));
    let filter = Filter {
        devices: arguments.devices.clone(),
        pod_interfaces: arguments.pod_interfaces.clone(),
    };
    let found = probe::devices().context("cannot list the network devices")?;
    let how = if kernel.tcx {
        "by tcx; egress by clsact where others have clsact filters"
    } else {
        "by clsact"
    };
    let probe = Probe {
        may_load: kernel::may_load(),
        bpf_file_system: arguments.paths.root().is_on_bpffs(),
        devices: found
            .into_iter()
            .map(|device| DeviceProbe {
                would_attach: filter
                    .reason_against(&device)
                    .map_or_else(|| how.to_owned(), |reason| format!("no: {reason}")),
                index: device.index,
                name: device.name,
                kind: device.kind,
                layer: device.layer,
                bridge_port: device.bridge_port,
            })
            .collect(),
        kernel,
    };
    super::print(arguments.output, &probe, |_| text(&probe))
}

fn text(probe: &Probe) -> String {
    let mut text = abilities(&probe.kernel).text();
    if !probe.may_load {
        text.push_str("\nNot root: what needs privilege to try counts as missing above.\n");
    }
    if !probe.bpf_file_system {
        text.push_str("\nNo BPF file system at --bpf-root: `waggle run` mounts one.\n");
    }
    let mut rows = Rows::new(&["DEVICE", "INDEX", "KIND", "LAYER", "BRIDGE-PORT", "ATTACH"]);
    for device in &probe.devices {
        rows.push(vec![
            device.name.clone(),
            device.index.to_string(),
            device.kind.clone(),
            device
                .layer
                .map_or_else(String::new, |layer| format!("{layer:?}").to_lowercase()),
            yes(device.bridge_port).to_owned(),
            device.would_attach.clone(),
        ]);
    }
    text.push('\n');
    text + &rows.text()
}

/// The kernel's abilities as rows: what, whether, and what for.
pub(super) fn abilities(kernel: &KernelAbilities) -> Rows {
    let mut rows = Rows::new(&["ABILITY", "HERE", "WHAT-FOR"]);
    let mut row = |what: &str, here: &str, why: &str| {
        rows.push([what, here, why].map(str::to_owned).to_vec());
    };
    row("kernel", &kernel.release, "6.1 and newer");
    row("btf", yes(kernel.btf), "required");
    row(
        "hz",
        &kernel.jiffies_per_second.to_string(),
        "time in the kernel programs",
    );
    row(
        "tcx",
        yes(kernel.tcx),
        "links on devices; without it clsact filters",
    );
    row(
        "cgroup-hooks",
        yes(kernel.cgroup_hooks),
        "services for the node's own processes",
    );
    row(
        "cgroup-root",
        kernel.cgroup_root.as_deref().unwrap_or("no"),
        "where they go",
    );
    row("ring-buffer", yes(kernel.ring_buffer), "events");
    row(
        "for-each-map-elem",
        yes(kernel.for_each_map_element),
        "ageing of flows",
    );
    row("prog-test-run", yes(kernel.test_run), "ageing of flows");
    row(
        "fib-lookup",
        yes(kernel.fib_lookup),
        "backends behind the client's bridge",
    );
    row(
        "sock-destroy",
        yes(kernel.socket_destroy),
        "ends connected UDP sockets of backends that left",
    );
    rows
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
