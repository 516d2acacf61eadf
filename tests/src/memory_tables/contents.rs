//! Tables as an agent has written them.
use lb_userspace::maps::MapContents;

use super::MemoryTables;

impl From<&MapContents> for MemoryTables {
    /// What an agent has written, and no flows.
    fn from(contents: &MapContents) -> Self {
        let mut tables = Self {
            services: contents.services.clone(),
            slots: contents.slots.clone(),
            networks: contents.networks,
            ..Self::default()
        };
        tables.v4.frontends.clone_from(&contents.v4.frontends);
        tables.v6.frontends.clone_from(&contents.v6.frontends);
        tables.v4.backends.clone_from(&contents.v4.backends);
        tables.v6.backends.clone_from(&contents.v6.backends);
        let ranges = contents.v4.source_ranges.iter();
        let ranges = ranges.chain(&contents.v6.source_ranges);
        tables.source_ranges.extend(ranges);
        tables
    }
}
