//! What tools and tests fit into the tables: to hear of decisions, and to cause accidents that real maps have.
use lb_common::{FlowEntry, ServiceEntry, Tuple};

use crate::{
    bytes::headers::Wire,
    context::environment::{Decision, FlowTable},
};

/// Fitted into all tables. What is not overridden does nothing.
pub trait Instrument: Default {
    /// What is fitted into the tables of one family.
    type Family<F: Wire>: FamilyInstrument<F>;

    /// A lookup is made in a table that costs something: any but the arrays SERVICES, SLOTS and BACKENDS.
    fn looked_up(&self) {}
    /// What the next reading of SERVICES gives instead of what is there: a service that changes meanwhile.
    fn service_reading(&self) -> Option<ServiceEntry> {
        None
    }
    /// Whether the next look at a flow table finds nothing, for another CPU is about to move the flow.
    fn misses_flow(&self) -> bool {
        false
    }
    /// Reads are ordered: what is looked at afterwards is not read before.
    fn orders_reads(&self) {}
    /// How many moves other CPUs have made so.
    fn moves(&self) -> u32 {
        0
    }
    /// The datapath tells of a decision.
    fn decided<F: Wire>(&self, _decision: &Decision<F>) {}
}

/// What another CPU does with a flow entry, and in which table it is then.
pub type Race<F> = (FlowTable, Tuple<F>, FlowEntry<F>);

/// Fitted into the tables of one family.
pub trait FamilyInstrument<F: Wire>: Default {
    /// Whether the kernel refuses to store in FRAGMENTS.
    fn refuses_fragments(&self) -> bool {
        false
    }
    /// Whether the kernel refuses to store in `SOCKET_FLOWS`.
    fn refuses_socket_flows(&self) -> bool {
        false
    }
    /// What another CPU does with a flow entry just before our next insert in `OPENING_FLOWS`: it stores it there, or
    /// moves it from there to FLOWS.
    fn race(&mut self) -> Option<Race<F>> {
        None
    }
}

impl Instrument for () {
    type Family<F: Wire> = ();
}
impl<F: Wire> FamilyInstrument<F> for () {}
