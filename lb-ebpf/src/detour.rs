//! What only few packets go through: the first ones of a flow, those with extension headers, fragments, ICMP.
//!
//! Each detour takes what it needs from the scratch memory and leaves its results there. So the kernel's programs can make
//! it a function of its own that the verifier knows nothing about but its result: ways before, in and after a detour add
//! up, where in one piece they would multiply. Elsewhere it is a plain call.
use lb_common::{DropReason, FlowSide, V6, Verdict};

use crate::{
    clock::Clock,
    fragments,
    icmp::{self, Icmp},
    masquerade::MasqueradeAddress,
    opening,
    packet::{Forwarding, Packet},
    parse::{self, Link, ParseError, Parsed},
    reply_path, request_path,
    scratch::{Entries, FamilyScratch},
    tables::Tables,
};

/// A packet whose extension headers can be walked over.
pub trait Extensions: Packet {
    /// [`parse::skip_extensions`].
    #[inline(always)]
    fn skip_extensions(&self, parsed: &mut Parsed<V6>) -> Result<(), ParseError> {
        parse::skip_extensions(self, parsed)
    }
}

/// Where in the node a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which end of a packet is rewritten here: destinations on ingress, sources on egress.
    pub side: FlowSide,
    /// How the device frames packets.
    pub link: Link,
}

/// A packet that can take the detours of a family.
pub trait Detours<F: MasqueradeAddress>: Extensions + Forwarding<F> {
    /// [`opening::choose`].
    #[inline(always)]
    fn choose<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        opening::choose(self, parsed, entries, tables, clock)
    }

    /// [`opening::reserve`].
    #[inline(always)]
    fn reserve<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        opening::reserve(parsed, entries, tables, clock)
    }

    /// [`opening::remember`].
    #[inline(always)]
    fn remember<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        opening::remember(parsed, entries, tables, clock)
    }

    /// [`request_path::advance`].
    #[inline(always)]
    fn advance_request<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        request_path::advance(self, parsed, entries, tables, clock)
    }

    /// [`reply_path::advance`].
    #[inline(always)]
    fn advance_reply<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        reply_path::advance(self, parsed, entries, tables, clock)
    }

    /// [`fragments::note`].
    #[inline(always)]
    fn note_fragment<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        fragments::note(self, parsed, entries, tables, clock)
    }
}

/// A packet that can take the ways of a family that packets without ports go.
pub trait Asides<F: Icmp>: Detours<F> {
    /// [`icmp::message`].
    #[inline(always)]
    fn portless<T: Tables<F>>(
        &mut self,
        place: Place,
        scratch: &mut FamilyScratch<F>,
        tables: &mut T,
    ) -> Verdict
    where
        Self: Sized,
    {
        icmp::message(self, place, scratch, tables)
    }

    /// [`fragments::later`].
    #[inline(always)]
    fn later_fragment<T: Tables<F>, C: Clock>(
        &mut self,
        place: Place,
        scratch: &mut FamilyScratch<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Verdict
    where
        Self: Sized,
    {
        fragments::later(self, place, scratch, tables, clock)
    }
}
