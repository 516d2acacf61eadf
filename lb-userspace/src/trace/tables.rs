//! The tables of one question: those that an agent has written, and room for the flows that the question's packets leave.
//! With the question they are gone.
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use lb_common::{
    BackendId, BackendState, ClientScope, FrontendEntry, FrontendFlags, Port, ServiceEntry,
    ServiceId,
};
use lb_ebpf::{
    bytes::headers::Wire,
    context::environment::Decision,
    memory::{instrument::Instrument, tables::MemoryTables},
};

use crate::maps::{MapContents, dump::is_any_port};

impl<I: Instrument> From<&MapContents> for MemoryTables<I> {
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

/// A decision of the datapath, of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// FRONTENDS, of an address that is one.
    Frontend(SocketAddr, FrontendEntry, ClientScope),
    /// SERVICES.
    Service(ServiceId, ServiceEntry),
    /// BACKENDS.
    Backend(BackendId, SocketAddr, BackendState),
}

/// Writes down what the datapath decides, in its order; nothing twice in a row.
#[derive(Default)]
pub(super) struct Record {
    lookups: RefCell<Vec<Lookup>>,
}

impl Record {
    /// What was decided so far.
    pub(super) fn lookups(&self) -> Vec<Lookup> {
        self.lookups.borrow().clone()
    }
}

impl Instrument for Record {
    type Family<F: Wire> = ();

    fn decided<F: Wire>(&self, decision: &Decision<F>) {
        let lookup = match *decision {
            Decision::Frontend(key, entry)
                if is_any_port(&key) || entry.flags.has(FrontendFlags::DIRECT) =>
            {
                return;
            }
            Decision::Frontend(key, entry) => Lookup::Frontend(
                socket_address(key.address, key.port),
                entry,
                ClientScope::from_number(key.scope).unwrap_or_default(),
            ),
            Decision::Service(id, entry) => Lookup::Service(id, entry),
            Decision::Backend(id, entry) => {
                let address = socket_address(entry.address, entry.port);
                Lookup::Backend(id, address, entry.state())
            }
        };
        let mut lookups = self.lookups.borrow_mut();
        if lookups.last() != Some(&lookup) {
            lookups.push(lookup);
        }
    }
}

fn socket_address<A: Into<IpAddr>>(address: A, port: Port) -> SocketAddr {
    SocketAddr::new(address.into(), port.number())
}
