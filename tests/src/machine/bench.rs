//! What the measuring programs share: figures, a table for people, a file for programs.
use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::{Value, json};

/// The nanoseconds of one program, round by round.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// Adds a round.
    pub fn push(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }
    /// The smallest; zero of nothing.
    pub fn min(&self) -> u64 {
        self.0.iter().min().copied().unwrap_or_default()
    }
    /// The value that a share of all do not exceed (0.5: the median); zero of nothing.
    pub fn quantile(&self, share: f64) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a short list"
        )]
        let place = (last as f64 * share).ceil() as usize;
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// A line of a report on packets.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Nanoseconds a packet, the best round.
    pub min_ns: u64,
    /// Nanoseconds a packet, the median round.
    pub median_ns: u64,
    /// The row it is compared with.
    pub floor: Option<String>,
}

/// All lines of a report on packets.
#[derive(Clone, Debug, Default)]
pub struct Report(pub Vec<Row>);

impl Report {
    fn floor_of(&self, row: &Row) -> Option<&Row> {
        let name = row.floor.as_ref()?;
        self.0.iter().find(|other| other.name == *name)
    }
    /// How often the floor's best round fits into the row's.
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        let floor = self.floor_of(row)?;
        #[expect(clippy::cast_precision_loss, reason = "a few hundred nanoseconds")]
        let ratio = row.min_ns as f64 / floor.min_ns.max(1) as f64;
        Some(ratio)
    }
    /// The table.
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:24} {:>7} {:>9}  {:22} {:>6} {:>9}",
            "program", "min ns", "median ns", "floor", "ratio", "over, ns"
        )];
        for row in &self.0 {
            let (floor, ratio, over) = match (self.floor_of(row), self.ratio(row)) {
                (Some(floor), Some(ratio)) => (
                    floor.name.as_str(),
                    format!("{ratio:.2}"),
                    (row.min_ns.cast_signed() - floor.min_ns.cast_signed()).to_string(),
                ),
                _ => ("", String::new(), String::new()),
            };
            let Row {
                name,
                min_ns,
                median_ns,
                ..
            } = row;
            lines.push(format!(
                "{name:24} {min_ns:>7} {median_ns:>9}  {floor:22} {ratio:>6} {over:>9}"
            ));
        }
        lines.join("\n") + "\n"
    }
    /// The same for programs: rows of name, `min_ns`, `median_ns`, `floor_name`, ratio.
    pub fn json(&self) -> Value {
        let rows = self.0.iter().map(|row| {
            json!({
                "name": row.name,
                "min_ns": row.min_ns,
                "median_ns": row.median_ns,
                "floor_name": row.floor,
                "ratio": self.ratio(row),
            })
        });
        Value::Array(rows.collect())
    }
}

/// Writes target/bench/NAME.json and says where it is.
pub fn write_json(name: &str, value: &Value) -> Result<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(name).with_extension("json");
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Keeps the calling thread on one CPU, so that its caches and per-CPU memory stay with it.
pub fn pin_to_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let samples = Samples(vec![30, 10, 20, 40]);
        assert_eq!(
            [0.0, 0.5, 0.99, 1.0].map(|share| samples.quantile(share)),
            [10, 30, 40, 40]
        );
        assert_eq!(samples.min(), 10);
    }

    #[test]
    fn a_row_is_compared_with_its_floor() {
        let row = |name: &str, min_ns, floor: Option<&str>| Row {
            name: name.to_owned(),
            min_ns,
            median_ns: min_ns,
            floor: floor.map(str::to_owned),
        };
        let report = Report(vec![
            row("floor", 100, None),
            row("product", 130, Some("floor")),
        ]);
        assert_eq!(report.ratio(&report.0[1]), Some(1.3));
        assert!(report.table().contains(" 1.30 "), "{}", report.table());
        assert_eq!(report.json()[1]["ratio"], 1.3);
    }
}
