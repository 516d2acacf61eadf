//! What this kernel can do, tried rather than guessed from its version.
use std::{io, path::Path};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use serde::{Deserialize, Serialize};

use crate::datapath::{
    devices::{attach, clsact::Route, device::Device, inventory},
    node::kernel,
    sockets::cgroup,
};
use crate::flows::sockets;

/// The devices of the calling thread's network namespace.
pub(crate) fn devices() -> io::Result<Vec<Device>> {
    inventory::devices(&mut Route::route()?)
}

/// What the kernel can do; what matters for it stands beside each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a list of independent abilities, for people"
)]
pub struct KernelAbilities {
    /// `uname -r`.
    pub release: String,
    /// The programs' oldest kernel or newer.
    pub new_enough: bool,
    /// The kernel describes its types.
    pub btf: bool,
    /// Ticks a second.
    pub jiffies_per_second: u32,
    /// Programs on devices by links; without it, by clsact filters.
    pub tcx: bool,
    /// Socket hooks.
    pub cgroup_hooks: bool,
    /// Where they go.
    pub cgroup_root: Option<String>,
    /// Events.
    pub ring_buffer: bool,
    /// The ageing of flows (`bpf_for_each_map_elem`).
    pub for_each_map_element: bool,
    /// Bridged backends (`bpf_fib_lookup`).
    pub fib_lookup: bool,
    /// The ageing of flows (`BPF_PROG_TEST_RUN`): in every kernel since 4.12 that has BPF programs for devices.
    pub test_run: bool,
    /// Connected UDP sockets of backends that left are ended; without it they stay where they are.
    pub socket_destroy: bool,
}

impl KernelAbilities {
    /// Tries everything. Takes some milliseconds, and privilege: what may not be tried counts as missing.
    pub fn find(btf: &Path) -> Self {
        let release = kernel::release();
        let helper = |helper: BpfHelper| {
            is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(false)
        };
        Self {
            new_enough: kernel::Version::parse(&release)
                .is_some_and(|version| version >= kernel::OLDEST),
            release,
            btf: btf.exists(),
            jiffies_per_second: kernel::jiffies_per_second().unwrap_or_default(),
            tcx: attach::has_tcx(),
            cgroup_hooks: is_program_supported(ProgramType::CgroupSockAddr).unwrap_or(false),
            cgroup_root: cgroup::root().ok().map(|path| path.display().to_string()),
            ring_buffer: is_map_supported(MapType::RingBuf).unwrap_or(false),
            for_each_map_element: helper(BpfHelper::BPF_FUNC_for_each_map_elem),
            fib_lookup: helper(BpfHelper::BPF_FUNC_fib_lookup),
            test_run: is_program_supported(ProgramType::SchedClassifier).unwrap_or(false),
            socket_destroy: sockets::can_destroy().unwrap_or(false),
        }
    }
}
