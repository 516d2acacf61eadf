//! The kernel programs in this kernel, over maps of a test's own, run packet by packet with `BPF_PROG_TEST_RUN`.
use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{Array, HashMap, LpmTrie, Map, PerCpuArray, ProgramArray},
    programs::{Program, SchedClassifier, TestRun as _},
};
use bytemuck::Pod;
use lb_common::{
    AffinityEntry, AffinityKey, BackendEntry, Counter, FlowEntry, FrontendKey, SourceRange, Tuple,
    V4, V6, config::CONFIG_SYMBOL,
};
use lb_userspace::maps::{
    MapFamily,
    bpf::{Plain, range_key},
};

use crate::oracle::memory_tables::{FamilyTables, MemoryFamily, MemoryTables};

/// The programs that measurements compare with, and those that wrap a program: `cargo xtask` builds them.
const FLOOR_OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/floor-bpf");

/// Length of a wrapper's template.
const TEMPLATE: usize = 80;

/// Room for a packet that comes back.
const LARGEST_PACKET: usize = 2048;

/// The object, loaded over maps that vanish with it.
pub struct KernelProgram {
    ebpf: Ebpf,
}

/// What a run of a program gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned.
    pub action: i32,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
    /// Nanoseconds of one run, by the kernel's own measure over all repetitions.
    pub nanoseconds: u64,
}

impl KernelProgram {
    /// Loads the programs of network devices of the product's object, with a configuration, over fresh maps.
    pub fn load(object: &[u8], config: &lb_common::DatapathConfig) -> Result<Self> {
        Self::load_over(object, config, &[])
    }

    /// The same, with room for so many entries in some of the maps.
    pub fn load_over(
        object: &[u8],
        config: &lb_common::DatapathConfig,
        rooms: &[(&str, u32)],
    ) -> Result<Self> {
        Self::load_with(object, CONFIG_SYMBOL, bytemuck::bytes_of(config), rooms)
    }

    /// Loads the TC programs of any object, with one global set.
    pub fn load_with(
        object: &[u8],
        symbol: &str,
        global: &[u8],
        rooms: &[(&str, u32)],
    ) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.override_global(symbol, global, true);
        for (map, entries) in rooms {
            loader.map_max_entries(map, *entries);
        }
        let mut ebpf = loader
            .load(object)
            .context("cannot create the maps of the object")?;
        for (name, program) in ebpf.programs_mut() {
            if let Program::SchedClassifier(program) = program {
                program
                    .load()
                    .with_context(|| format!("cannot load {name}"))?;
            }
        }
        Ok(Self { ebpf })
    }

    /// The programs that measurements compare with.
    pub fn floor() -> Result<Self> {
        Self::floor_with([0; TEMPLATE])
    }

    /// Those, and wrappers that put back what begins so.
    fn floor_with(template: [u8; TEMPLATE]) -> Result<Self> {
        let object = fs::read(FLOOR_OBJECT).with_context(|| {
            format!("cannot read {FLOOR_OBJECT}: `cargo xtask test kernel` builds it")
        })?;
        Self::load_with(&object, "TEMPLATE", &template, &[])
    }

    /// Programs that run `name` on a frame that they put back each time: its first bytes are a constant of theirs.
    pub fn wrapped(&mut self, name: &str, frame: &[u8]) -> Result<Self> {
        let mut template = [0u8; TEMPLATE];
        let known = frame.len().min(TEMPLATE);
        template[..known].copy_from_slice(&frame[..known]);
        let mut wrapper = Self::floor_with(template)?;
        let mut slot: ProgramArray<_> = wrapper.map("PROGRAM")?;
        slot.set(0, self.classifier(name)?.fd()?, 0)?;
        Ok(wrapper)
    }

    /// Runs a program on a packet. `Err` where the kernel does not take the packet for a test run (shorter than an
    /// Ethernet header, or than the IP header its `EtherType` promises).
    pub fn run(&mut self, program: &str, packet: &[u8], repeat: u32) -> Result<Ran> {
        let program = self.classifier(program)?;
        let mut out = vec![0; LARGEST_PACKET];
        let ran = program.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        })?;
        out.truncate(usize::try_from(ran.data_size_out)?);
        Ok(Ran {
            action: ran.return_value.cast_signed(),
            bytes: out,
            nanoseconds: u64::try_from(ran.duration.as_nanos())?,
        })
    }

    /// A program of network devices.
    pub fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut(name);
        let program = program.ok_or_else(|| anyhow!("the object has no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// Writes what tests keep in memory to the kernel's maps: all but the flows. What is written already stays, unless
    /// it is written again.
    pub fn fill(&mut self, tables: &MemoryTables) -> Result<()> {
        self.fill_array("SERVICES", &tables.services)?;
        self.fill_array("SLOTS", &tables.slots)?;
        self.fill_array("NETWORKS", &[(0, tables.networks)].into())?;
        self.fill_array("FRONTEND_EPOCH", &[(0, tables.frontend_epoch)].into())?;
        let mut devices: HashMap<_, u32, Plain<lb_common::DeviceEntry>> = self.map("DEVICES")?;
        for (interface, device) in &tables.devices {
            devices.insert(interface, Plain(*device), 0)?;
        }
        self.fill_family::<V4>("V4", tables)?;
        self.fill_family::<V6>("V6", tables)
    }

    fn fill_family<F: MemoryFamily + MapFamily>(
        &mut self,
        suffix: &str,
        tables: &MemoryTables,
    ) -> Result<()>
    where
        FrontendKey<F>: Pod,
        BackendEntry<F>: Pod,
        SourceRange<F>: Pod,
    {
        let mut ranges: LpmTrie<_, Plain<SourceRange<F>>, u32> =
            self.map(&format!("SOURCE_RANGES_{suffix}"))?;
        for (id, range) in &tables.source_ranges {
            if let Some(key) = range_key::<F>(*id, *range) {
                ranges.insert(&key, 0, 0)?;
            }
        }
        let own: &FamilyTables<F> = F::own(tables);
        self.fill_array(&format!("BACKENDS_{suffix}"), &own.backends)?;
        let mut frontends: HashMap<_, Plain<FrontendKey<F>>, Plain<lb_common::FrontendEntry>> =
            self.map(&format!("FRONTENDS_{suffix}"))?;
        for (key, entry) in &own.frontends {
            frontends.insert(Plain(*key), Plain(*entry), 0)?;
        }
        Ok(())
    }

    fn fill_array<T: Pod>(&mut self, name: &str, entries: &BTreeMap<u32, T>) -> Result<()> {
        let mut array: Array<_, Plain<T>> = self.map(name)?;
        for (index, entry) in entries {
            array.set(*index, Plain(*entry), 0)?;
        }
        Ok(())
    }

    /// Stores an entry in a flow table of a family (`FLOWS_V4`).
    pub fn put_flow<F: MemoryFamily>(
        &mut self,
        table: &str,
        key: &Tuple<F>,
        entry: &FlowEntry<F>,
    ) -> Result<()>
    where
        Tuple<F>: Pod,
        FlowEntry<F>: Pod,
    {
        let mut flows: HashMap<_, Plain<Tuple<F>>, Plain<FlowEntry<F>>> = self.map(table)?;
        flows.insert(Plain(*key), Plain(*entry), 0)?;
        Ok(())
    }

    /// All entries of a flow table (`FLOWS_V4`).
    pub fn flows<F: MemoryFamily>(
        &mut self,
        table: &str,
    ) -> Result<BTreeMap<Tuple<F>, FlowEntry<F>>>
    where
        Tuple<F>: Pod,
        FlowEntry<F>: Pod,
    {
        let flows: HashMap<_, Plain<Tuple<F>>, Plain<FlowEntry<F>>> = self.map(table)?;
        flows
            .iter()
            .map(|pair| pair.map(|(key, entry)| (key.0, entry.0)))
            .collect::<Result<_, _>>()
            .with_context(|| format!("cannot read {table}"))
    }

    /// Which backend each client of a service has (`AFFINITY_V4`).
    pub fn affinities<F: MemoryFamily>(
        &mut self,
        table: &str,
    ) -> Result<BTreeMap<AffinityKey<F>, AffinityEntry>>
    where
        AffinityKey<F>: Pod,
    {
        let entries: HashMap<_, Plain<AffinityKey<F>>, Plain<AffinityEntry>> = self.map(table)?;
        entries
            .iter()
            .map(|pair| pair.map(|(key, entry)| (key.0, entry.0)))
            .collect::<Result<_, _>>()
            .with_context(|| format!("cannot read {table}"))
    }

    /// Forgets all entries of a flow table.
    pub fn clear_flows<F: MemoryFamily>(&mut self, table: &str) -> Result<()>
    where
        Tuple<F>: Pod,
        FlowEntry<F>: Pod,
    {
        let keys: Vec<Tuple<F>> = self.flows::<F>(table)?.into_keys().collect();
        let mut flows: HashMap<_, Plain<Tuple<F>>, Plain<FlowEntry<F>>> = self.map(table)?;
        for key in keys {
            flows.remove(&Plain(key))?;
        }
        Ok(())
    }

    /// How often something was counted, on all CPUs together.
    pub fn counted(&mut self, counter: Counter) -> Result<u64> {
        let counters: PerCpuArray<_, u64> = self.map("COUNTERS")?;
        let values = counters.get(&(counter as u32), 0)?;
        Ok(values.iter().sum())
    }

    /// A map of the object as one of aya's types.
    pub fn map<'a, M>(&'a mut self, name: &str) -> Result<M>
    where
        M: TryFrom<&'a mut Map, Error: std::error::Error + Send + Sync + 'static>,
    {
        let map = self.ebpf.map_mut(name);
        let map = map.ok_or_else(|| anyhow!("the object has no map {name}"))?;
        M::try_from(map).with_context(|| format!("the map {name} is of another kind"))
    }
}
