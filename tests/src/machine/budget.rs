//! What the kernel's verifier says of every program: does it load, how many instructions were verified, how deep is the
//! stack. The budget file holds the figures of the oldest supported kernel, which nothing may exceed unseen.
#![expect(
    unsafe_code,
    reason = "BPF_PROG_LOAD with a log that is wanted even when it succeeds: aya asks for none then"
)]
use std::{
    collections::{BTreeMap, HashSet},
    fmt, io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{Ebpf, EbpfLoader, maps::Map};
use aya_obj::{
    Function, Object, ProgramSection,
    btf::{Btf, BtfFeatures},
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type},
};
use lb_common::config::CONFIG_SYMBOL;

/// `BPF_LOG_STATS`: figures, and nothing else.
const LOG_STATISTICS: u32 = 4;
/// `BPF_LOG_LEVEL1` beside it: how the verifier came to refuse.
const LOG_REASONS: u32 = 1;
/// Room for figures.
const SMALL_LOG: usize = 1 << 16;
/// Room for reasons.
const LARGE_LOG: usize = 1 << 24;
/// How much of the reasons is shown.
const SHOWN_LINES: usize = 40;

/// What a program costs the verifier, or the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Instructions that were verified, each as often as it was.
    pub instructions: u32,
    /// Bytes of stack of the program and all its subprograms together: more than any chain of calls can take.
    pub stack: u32,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} {:>6}", self.instructions, self.stack)
    }
}

/// Loads every program of the object by itself and drops it again. Fails, with the end of the verifier's log, at the
/// first that is refused.
pub fn verify(object: &[u8], config: &lb_common::DatapathConfig) -> Result<BTreeMap<String, Cost>> {
    let maps = EbpfLoader::new()
        .override_global(CONFIG_SYMBOL, bytemuck::bytes_of(config), true)
        .load(object)
        .context("cannot create the maps")?;
    let mut object = Object::parse(object)?;
    let btf = load_types(&mut object)?;
    relocate(&mut object, &maps)?;
    let mut costs = BTreeMap::new();
    let programs: BTreeMap<_, _> = object.programs.iter().collect();
    for (name, program) in programs {
        let function = object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| anyhow!("{name} has no instructions"))?;
        let load = Load {
            name,
            section: &program.section,
            license: &program.license,
            function,
            btf: btf.as_fd(),
        };
        costs.insert(name.clone(), load.cost()?);
    }
    Ok(costs)
}

/// Tells the kernel of the object's types; programs with callbacks do not load without.
fn load_types(object: &mut Object) -> Result<OwnedFd> {
    let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let btf = object.fixup_and_sanitize_btf(&features)?;
    let bytes = btf.map(Btf::to_bytes).context("the object has no types")?;
    // SAFETY: all of it is integers.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the fields of BPF_BTF_LOAD, in a union of plain integers.
    let load = unsafe { &mut attributes.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = u32::try_from(bytes.len())?;
    call(bpf_cmd::BPF_BTF_LOAD, &attributes).context("the kernel refuses the object's types")
}

/// Puts the maps' descriptors and the subprograms into the programs.
fn relocate(object: &mut Object, maps: &Ebpf) -> Result<()> {
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let declared = mem::take(&mut object.maps);
    let mut descriptors = Vec::new();
    for (name, map) in maps.maps() {
        let declared = declared.get(name);
        let declared = declared.with_context(|| format!("no map {name} is declared"))?;
        descriptors.push((name, descriptor(map)?, declared));
    }
    object.relocate_maps(descriptors.into_iter(), &text)?;
    Ok(object.relocate_calls(&text)?)
}

fn descriptor(map: &Map) -> Result<RawFd> {
    if let Map::Array(data)
    | Map::HashMap(data)
    | Map::LpmTrie(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::RingBuf(data) = map
    {
        return Ok(data.fd().as_fd().as_raw_fd());
    }
    bail!("a map of a kind that the budget does not know: {map:?}")
}

/// A program about to be loaded.
struct Load<'a> {
    name: &'a str,
    section: &'a ProgramSection,
    license: &'a std::ffi::CStr,
    function: &'a Function,
    btf: BorrowedFd<'a>,
}

impl Load<'_> {
    fn cost(&self) -> Result<Cost> {
        let mut log = vec![0u8; SMALL_LOG];
        if self.attempt(LOG_STATISTICS, &mut log).is_ok() {
            let log = text(&log);
            return read_cost(&log).with_context(|| format!("the figures of {}: {log}", self.name));
        }
        let mut log = vec![0u8; LARGE_LOG];
        let Err(error) = self.attempt(LOG_STATISTICS | LOG_REASONS, &mut log) else {
            bail!("{} is refused, but not when asked why", self.name);
        };
        let text = text(&log);
        let lines: Vec<_> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(SHOWN_LINES)..);
        bail!(
            "the kernel refuses {}: {error}\n{}",
            self.name,
            end.unwrap_or_default().join("\n")
        )
    }

    fn attempt(&self, level: u32, log: &mut [u8]) -> Result<OwnedFd> {
        let (kind, attach) = if let ProgramSection::CgroupSockAddr { attach_type } = self.section {
            (
                bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
                bpf_attach_type::from(*attach_type) as u32,
            )
        } else {
            (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0)
        };
        let functions = self.function.func_info.func_info_bytes();
        let lines = self.function.line_info.line_info_bytes();
        // SAFETY: all of it is integers.
        let mut attributes: bpf_attr = unsafe { mem::zeroed() };
        // SAFETY: the fields of BPF_PROG_LOAD, in a union of plain integers.
        let load = unsafe { &mut attributes.__bindgen_anon_3 };
        load.prog_type = kind as u32;
        load.expected_attach_type = attach;
        load.insns = self.function.instructions.as_ptr() as u64;
        load.insn_cnt = u32::try_from(self.function.instructions.len())?;
        load.license = self.license.as_ptr() as u64;
        load.log_level = level;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = u32::try_from(log.len())?;
        load.prog_btf_fd = u32::try_from(self.btf.as_raw_fd())?;
        load.func_info = functions.as_ptr() as u64;
        load.func_info_cnt = u32::try_from(self.function.func_info.len())?;
        load.func_info_rec_size = u32::try_from(self.function.func_info_rec_size)?;
        load.line_info = lines.as_ptr() as u64;
        load.line_info_cnt = u32::try_from(self.function.line_info.len())?;
        load.line_info_rec_size = u32::try_from(self.function.line_info_rec_size)?;
        call(bpf_cmd::BPF_PROG_LOAD, &attributes)
    }
}

fn call(command: bpf_cmd, attributes: &bpf_attr) -> Result<OwnedFd> {
    // SAFETY: the attributes and what they point to live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_ref(attributes),
            size_of::<bpf_attr>(),
        )
    };
    let descriptor = RawFd::try_from(result)?;
    ensure!(descriptor >= 0, "{}", io::Error::last_os_error());
    // SAFETY: both commands give a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn text(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

/// Reads `stack depth 240+16` (the program and its subprograms; from Linux 7.3 on `stack depth max 256`, of the longest
/// chain of calls) and `processed 1234 insns`.
fn read_cost(log: &str) -> Result<Cost> {
    let after = |mark: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(mark));
        let rest = line.with_context(|| format!("no \"{mark}\" in: {log}"))?;
        anyhow::Ok(
            rest.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let depths = after("stack depth max ").or_else(|_| after("stack depth "))?;
    let depths: Vec<u32> = depths
        .split('+')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("stack depth {depths}"))?;
    Ok(Cost {
        instructions: after("processed ")?.parse()?,
        stack: depths.iter().sum(),
    })
}

/// The budget file: a line a program, name, instructions and stack.
pub fn parse(file: &str) -> Result<BTreeMap<String, Cost>> {
    let lines = file
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [name, instructions, stack] = words[..] else {
                bail!("a line of the budget is not \"name instructions stack\": {line}");
            };
            let cost = Cost {
                instructions: instructions.parse()?,
                stack: stack.parse()?,
            };
            Ok((name.to_owned(), cost))
        })
        .collect()
}

/// The budget file that these costs make: each with a little air, so that a compiler's mood is not an alarm.
pub fn format(costs: &BTreeMap<String, Cost>) -> String {
    let mut lines = vec![
        "# What no program may exceed on Linux 6.1: verified instructions, bytes of stack with all".to_owned(),
        "# subprograms. The test `budget` on that kernel (cargo xtask test vm budget) prints what is".to_owned(),
        "# needed when this does not suffice; there UPDATE_BUDGET=1 writes it.".to_owned(),
    ];
    lines.extend(costs.iter().map(|(name, cost)| {
        let cost = Cost {
            instructions: (cost.instructions + cost.instructions / 10).next_multiple_of(100),
            stack: cost.stack.next_multiple_of(32),
        };
        format!("{name:20} {cost}")
    }));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_verifiers_log() {
        let log = "verification time 1808 usec\nstack depth 240+16+0\nprocessed 1063 insns (limit 1000000) max_states_per_insn 1 total_states 61 peak_states 61 mark_read 9\n";
        let cost = Cost {
            instructions: 1063,
            stack: 256,
        };
        assert_eq!(read_cost(log).unwrap(), cost);
        let log = "stack depth max 256\nsubprog 0 (age_flows_v4) main insns_self 53 insns_total 1063 stack 32\nprocessed 1063 insns (limit 1000000)\n";
        assert_eq!(read_cost(log).unwrap(), cost);
        assert!(read_cost("processed none").is_err());
    }

    #[test]
    fn a_budget_reads_back_with_a_little_air() {
        let cost = Cost {
            instructions: 100,
            stack: 512,
        };
        let needed = Cost {
            instructions: 77,
            stack: 500,
        };
        let file = format(&BTreeMap::from([(
            "tc_ingress_ethernet".to_owned(),
            needed,
        )]));
        let costs = BTreeMap::from([("tc_ingress_ethernet".to_owned(), cost)]);
        assert_eq!(parse(&file).unwrap(), costs);
        assert!(parse("tc_ingress 7").is_err());
    }
}
