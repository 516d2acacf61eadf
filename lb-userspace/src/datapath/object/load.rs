//! From the object's bytes to programs in the kernel, over maps that outlive them.
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use lb_common::{DatapathConfig, config::CONFIG_SYMBOL};

use crate::{
    bpf::{
        bpffs::BpfRoot,
        syscall::{self, AttachType},
    },
    datapath::{
        node::kernel,
        object::contract::{self, ConfiguredCapacities},
    },
};

/// The socket hooks: program name and the place at which it hangs (enum `bpf_attach_type`).
pub(crate) const SOCKET_PROGRAMS: &[(&str, AttachType)] = &[
    ("connect4", AttachType(10)),
    ("connect6", AttachType(11)),
    ("sendmsg4", AttachType(14)),
    ("sendmsg6", AttachType(15)),
    ("recvmsg4", AttachType(19)),
    ("recvmsg6", AttachType(20)),
    ("getpeername4", AttachType(29)),
    ("getpeername6", AttachType(30)),
];

/// The programs of network devices.
pub(in crate::datapath) const DEVICE_PROGRAMS: [&str; 4] = [
    "tc_ingress_ethernet",
    "tc_egress_ethernet",
    "tc_ingress_ip",
    "tc_egress_ip",
];

/// The programs that the agent runs itself.
pub const AGEING_PROGRAMS: [&str; 2] = ["age_flows_v4", "age_flows_v6"];

/// What loading depends on.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where maps are pinned.
    pub root: BpfRoot,
    /// The node's constants, but for the cookie and HZ, which are asked of the kernel.
    pub config: DatapathConfig,
    /// Capacities other than the declared ones, by map name.
    pub capacities: ConfiguredCapacities,
}

/// The loaded object. Dropping it leaves pinned maps and attached programs in place.
#[derive(Debug)]
pub struct Datapath {
    ebpf: Ebpf,
    root: BpfRoot,
    programs: BTreeMap<&'static str, OwnedFd>,
}

impl Datapath {
    /// Loads the object's programs over the pinned maps, which are made where they are missing.
    pub fn load(object: &[u8], options: &LoadOptions) -> Result<Self> {
        let folder = options.root.maps();
        refuse_other_object(object)?;
        refuse_other_maps(&folder, &options.capacities)?;
        let config = DatapathConfig {
            netns_cookie: netns_cookie().context("cannot learn the network namespace's cookie")?,
            udp_flow_entries: udp_flow_entries(&options.capacities),
            reorders_reads: u32::from(!cfg!(any(target_arch = "x86_64", target_arch = "x86"))),
            jiffies_per_second: kernel::jiffies_per_second()
                .context("cannot learn the kernel's HZ")?,
            ..options.config
        };
        let mut loader = EbpfLoader::new();
        loader.override_global(CONFIG_SYMBOL, bytemuck::bytes_of(&config), true);
        for (name, capacity) in &options.capacities {
            loader.map_max_entries(name, *capacity);
        }
        for spec in contract::MAPS {
            loader.map_pin_path(spec.name, folder.join(spec.name));
        }
        let mut ebpf = loader.load(object).with_context(|| {
            format!(
                "cannot create the maps in {} (is there enough memory? does the object belong to this program?)",
                folder.display()
            )
        })?;
        let mut programs = BTreeMap::new();
        let names = DEVICE_PROGRAMS
            .iter()
            .chain(&AGEING_PROGRAMS)
            .chain(SOCKET_PROGRAMS.iter().map(|(name, _)| name));
        for name in names {
            let program = ebpf
                .program_mut(name)
                .ok_or_else(|| anyhow!("the object has no program {name}: build it again"))?;
            programs.insert(*name, load_program(name, program)?);
        }
        Ok(Self {
            ebpf,
            root: options.root.clone(),
            programs,
        })
    }

    /// Where the maps and links are pinned.
    pub fn root(&self) -> &BpfRoot {
        &self.root
    }
    /// The object as aya knows it: for its log and for test runs.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
    /// A loaded program.
    pub(crate) fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        self.programs
            .get(name)
            .map(|fd| fd.as_fd())
            .ok_or_else(|| anyhow!("no program {name} is loaded"))
    }
}

fn refuse_other_object(object: &[u8]) -> Result<()> {
    let object = aya_obj::Object::parse(object)
        .context("the object of the kernel programs cannot be read")?;
    let mismatches = contract::check_object(&object);
    if mismatches.is_empty() {
        return Ok(());
    }
    bail!(
        "the object of the kernel programs is of another version than this program; cargo xtask ebpf, then build this program again:\n  {}",
        lines(&mismatches)
    )
}

fn lines(mismatches: &[contract::Mismatch]) -> String {
    let lines: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
    lines.join("\n  ")
}

/// UDP flows may take half of FLOWS: what proves a UDP client is weak, and connections shall find room beside them.
fn udp_flow_entries(capacities: &ConfiguredCapacities) -> u32 {
    let flows = contract::specs(capacities).filter(|spec| spec.name.starts_with("FLOWS_V"));
    flows.map(|spec| spec.capacity).min().unwrap_or_default() / 2
}

fn refuse_other_maps(folder: &Path, capacities: &ConfiguredCapacities) -> Result<()> {
    let mismatches = contract::check_pinned(folder, capacities);
    if mismatches.is_empty() {
        return Ok(());
    }
    bail!(
        "the maps pinned in {} do not fit this program and its configuration; set the capacities back, or stop the agent, run `waggle cleanup` (connections through services break) and start again:\n  {}",
        folder.display(),
        lines(&mismatches)
    )
}

fn load_program(name: &str, program: &mut Program) -> Result<OwnedFd> {
    let loaded = if let Program::SchedClassifier(program) = program {
        program.load()
    } else if let Program::CgroupSockAddr(program) = program {
        program.load()
    } else {
        bail!("{name} is of a kind that nobody knows how to attach: build the object again")
    };
    loaded.map_err(|error| refusal(name, &error))?;
    let fd = program
        .fd()
        .with_context(|| format!("{name} is not loaded"))?;
    fd.as_fd()
        .try_clone_to_owned()
        .with_context(|| format!("cannot keep {name}"))
}

/// How many lines of the verifier's log a person gets to see: its verdict stands at the end.
const LOG_TAIL: usize = 20;

fn refusal(name: &str, error: &ProgramError) -> anyhow::Error {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return anyhow!("cannot load the program {name}: {error}");
    };
    anyhow!(
        "this kernel ({}) refuses the program {name}: {io_error}; the end of the verifier's log:\n{}",
        kernel::release(),
        tail(&verifier_log.to_string())
    )
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines
        .get(lines.len().saturating_sub(LOG_TAIL)..)
        .unwrap_or(&[])
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The cookie of the network namespace this thread is in.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    syscall::socket_cookie_option(socket.as_fd(), libc::SO_NETNS_COOKIE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_verdict_is_at_the_end_of_the_tail() {
        let log: Vec<_> = (0..100).map(|line| format!("line {line}\n")).collect();
        let tail = tail(&log.join("\n"));
        assert_eq!(tail.lines().count(), LOG_TAIL);
        assert!(tail.starts_with("  line 80") && tail.ends_with("  line 99"));
    }
}
