//! The steps that only few packets take: the first ones of a flow, those with extension headers, fragments, ICMP.
//!
//! Each step takes what it needs from the scratch memory and leaves its results there. So the kernel's programs make it a
//! subprogram of its own, of which the verifier knows nothing but its result: paths before, in and after a step add
//! up, where in one piece they would multiply. On the host a step is a plain call.
use lb_common::{DropReason, FlowSide, Verdict};

use crate::{
    bytes::{
        packet::Forwarding,
        parse::{Extensions, Link, Parsed},
    },
    context::{
        clock::Clock,
        scratch::{Entries, FamilyScratch},
        tables::Tables,
    },
    path::icmp_quote::Icmp,
};

/// Where in the node a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Which end of a packet is rewritten here: destinations on ingress, sources on egress.
    pub side: FlowSide,
    /// How the device frames packets.
    pub link: Link,
}

/// A packet that can take the steps of a family.
pub trait Steps<F: Icmp>: Extensions + Forwarding<F> {
    /// [`crate::path::opening::choose`].
    fn choose<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason>;

    /// [`crate::path::opening::reserve`].
    fn reserve<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason>;

    /// [`crate::path::opening::remember`].
    fn remember<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason>;

    /// [`crate::path::request::advance`].
    fn advance_request<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason>;

    /// [`crate::path::reply::advance`].
    fn advance_reply<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason>;

    /// [`crate::path::fragments::note`].
    fn note_fragment<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason>;

    /// [`crate::path::icmp::message`].
    fn portless<T: Tables<F>>(
        &mut self,
        hook: Hook,
        scratch: &mut FamilyScratch<F>,
        tables: &mut T,
    ) -> Verdict;

    /// [`crate::path::fragments::later`].
    fn later_fragment<T: Tables<F>, C: Clock>(
        &mut self,
        hook: Hook,
        scratch: &mut FamilyScratch<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Verdict;
}
