//! Ageing: a kernel program walks the flow tables every few seconds; then the agent learns which backends no flow
//! refers to any more.
use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use lb_common::config::Timeouts;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::backends_in_use;
use crate::{
    agent::Event,
    bpf::syscall,
    datapath::{Datapath, object::load::AGEING_PROGRAMS},
    maps::bpf::Plain,
    model::Family,
};

/// Between two sweeps: the shortest timeout is two minutes, and a flow that lives five seconds too long harms nobody.
const PAUSE: Duration = Duration::from_secs(5);

/// Backends of flows: family, id, generation.
type InUse = BTreeSet<(Family, u32, u32)>;

/// What the last sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SweepReport {
    /// How many sweeps there have been.
    pub sweeps: u64,
    /// How long the last one took, in microseconds, reading the tables included.
    pub microseconds: u64,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// Runs the ageing programs.
#[derive(Debug)]
pub struct Sweeper {
    programs: Vec<OwnedFd>,
    maps: PathBuf,
}

impl Sweeper {
    /// Writes the timeouts to AGEING and takes hold of the ageing programs.
    pub fn new(datapath: &Datapath, timeouts: Timeouts) -> Result<Self> {
        let maps = datapath.root().maps();
        let map = MapData::from_pin(maps.join("AGEING"))
            .and_then(Map::from_map_data)
            .context("cannot open the map AGEING")?;
        let mut ageing: Array<MapData, Plain<Timeouts>> =
            map.try_into().context("the map AGEING is no array")?;
        ageing
            .set(0, Plain(timeouts), 0)
            .context("cannot write the timeouts to the map AGEING")?;
        let programs = AGEING_PROGRAMS
            .iter()
            .map(|name| Ok(datapath.program(name)?.try_clone_to_owned()?))
            .collect::<Result<_>>()?;
        Ok(Self { programs, maps })
    }

    /// Removes what is expired from FLOWS. Blocks for some milliseconds at full tables.
    pub fn sweep(&self) -> Result<()> {
        for program in &self.programs {
            syscall::run(program.as_fd())
                .context("the kernel does not run the ageing program (BPF_PROG_TEST_RUN)")?;
        }
        Ok(())
    }

    /// The backends of all flows: family, id, generation.
    fn in_use(&self) -> Result<InUse> {
        let mut found = BTreeSet::new();
        backends_in_use(&self.maps, |family, id, generation| {
            found.insert((family, id, generation));
        })
        .context("cannot read the flow tables")?;
        Ok(found)
    }
}

/// Sweeps for ever, and tells the agent which resting backends nobody refers to any more.
pub async fn run(
    sweeper: Sweeper,
    events: mpsc::Sender<Event>,
    reports: watch::Sender<SweepReport>,
) {
    let sweeper = std::sync::Arc::new(sweeper);
    let mut pause = tokio::time::interval(PAUSE);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        let (answer, resting) = oneshot::channel();
        if events.send(Event::Resting(answer)).await.is_err() {
            return;
        }
        // The sweep starts after the answer: whatever refers to one of these backends is in the tables already.
        let Ok(resting) = resting.await else {
            return;
        };
        let sweeper = std::sync::Arc::clone(&sweeper);
        let wants_use = !resting.is_empty();
        let swept = tokio::task::spawn_blocking(move || timed(&sweeper, wants_use)).await;
        let (took, result) = match swept {
            Ok(swept) => swept,
            Err(error) => (Duration::ZERO, Err(error.into())),
        };
        reports.send_modify(|report| {
            report.sweeps += 1;
            report.microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            report.error = result.as_ref().err().map(|error| format!("{error:#}"));
        });
        match result {
            Ok(in_use) => {
                let free: Vec<_> = resting
                    .into_iter()
                    .filter(|backend| {
                        !in_use.contains(&(backend.family, backend.id, backend.generation))
                    })
                    .collect();
                if !free.is_empty() && events.send(Event::Unreferenced(free)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!("the sweep of the flows failed: {error:#}"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures what it does, for `status`"
)]
fn timed(sweeper: &Sweeper, wants_use: bool) -> (Duration, Result<InUse>) {
    let start = Instant::now();
    let result = sweeper.sweep().and_then(|()| {
        if wants_use {
            sweeper.in_use()
        } else {
            Ok(BTreeSet::new())
        }
    });
    (start.elapsed(), result)
}
