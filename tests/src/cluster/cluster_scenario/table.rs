//! Who answered whom how often.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Result, ensure};

use crate::traffic::client::Answers;

/// A row for each client, a column for each pod that answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    rows: Vec<(String, BTreeMap<String, u64>)>,
}

impl Seen {
    /// Adds a client's answers (`<pod> <address>` each).
    pub(super) fn add(&mut self, client: &str, answers: &Answers) {
        let mut row = BTreeMap::new();
        for (answer, count) in answers {
            let pod = answer.split(' ').next().unwrap_or_default();
            *row.entry(pod.to_owned()).or_default() += count;
        }
        self.rows.push((client.to_owned(), row));
    }

    /// An error if a client missed one of `pods`.
    pub(super) fn expect_all(&self, pods: &[&str]) -> Result<()> {
        for (client, row) in &self.rows {
            let missed: Vec<_> = pods.iter().filter(|pod| !row.contains_key(**pod)).collect();
            ensure!(missed.is_empty(), "{client} never met {missed:?}");
        }
        Ok(())
    }

    /// An error if a client met another than `pods`.
    pub(super) fn expect_only(&self, pods: &[&str]) -> Result<()> {
        for (client, row) in &self.rows {
            let met = row.keys().map(String::as_str);
            let foreign: Vec<_> = met.filter(|pod| !pods.contains(pod)).collect();
            ensure!(
                foreign.is_empty(),
                "{foreign:?} answered {client}, though no (longer a) backend of the Service"
            );
        }
        Ok(())
    }

    fn pods(&self) -> BTreeSet<&str> {
        let names = self.rows.iter().flat_map(|(_, row)| row.keys());
        names.map(String::as_str).collect()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = self.pods();
        write!(formatter, "  {:<16}", "CLIENT")?;
        for pod in &pods {
            write!(formatter, "{pod:>12}")?;
        }
        writeln!(formatter)?;
        for (client, row) in &self.rows {
            write!(formatter, "  {client:<16}")?;
            for pod in &pods {
                match row.get(*pod) {
                    Some(count) => write!(formatter, "{count:>12}")?,
                    None => write!(formatter, "{:>12}", "-")?,
                }
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_pod_and_a_foreign_one_are_both_errors() {
        let mut seen = Seen::default();
        seen.add("client", &Answers::from([("a 10.0.0.1".to_owned(), 3)]));
        assert!(seen.expect_all(&["a"]).is_ok() && seen.expect_only(&["a", "b"]).is_ok());
        assert!(seen.expect_all(&["a", "b"]).is_err());
        assert!(seen.expect_only(&[]).is_err());
        assert_eq!(
            seen.to_string(),
            "  CLIENT                     a\n  client                     3\n"
        );
    }
}
