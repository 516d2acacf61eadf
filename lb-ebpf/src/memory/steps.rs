//! On the host every step is a plain call.
use lb_common::{DropReason, V6, Verdict};

use super::packet::MemoryPacket;
use crate::{
    bytes::parse::{self, Extensions, ParseError, Parsed},
    context::{
        clock::Clock,
        scratch::{Entries, FamilyScratch},
        tables::Tables,
    },
    path::{
        fragments, icmp,
        icmp_quote::Icmp,
        opening, reply, request,
        steps::{Hook, Steps},
    },
};

impl Extensions for MemoryPacket {
    fn skip_extensions(&self, parsed: &mut Parsed<V6>) -> Result<(), ParseError> {
        parse::skip_extensions(self, parsed)
    }
}

impl<F: Icmp> Steps<F> for MemoryPacket {
    fn choose<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        opening::choose(self, parsed, entries, tables, clock)
    }
    fn reserve<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        opening::reserve(parsed, entries, tables, clock)
    }
    fn remember<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        opening::remember(parsed, entries, tables, clock)
    }
    fn advance_request<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        request::advance(self, parsed, entries, tables, clock)
    }
    fn advance_reply<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        reply::advance(self, parsed, entries, tables, clock)
    }
    fn note_fragment<T: Tables<F>, C: Clock>(
        &mut self,
        parsed: &Parsed<F>,
        entries: &mut Entries<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Result<(), DropReason> {
        fragments::note(self, parsed, entries, tables, clock)
    }
    fn portless<T: Tables<F>>(
        &mut self,
        hook: Hook,
        scratch: &mut FamilyScratch<F>,
        tables: &mut T,
    ) -> Verdict {
        icmp::message(self, hook, scratch, tables)
    }
    fn later_fragment<T: Tables<F>, C: Clock>(
        &mut self,
        hook: Hook,
        scratch: &mut FamilyScratch<F>,
        tables: &mut T,
        clock: &mut C,
    ) -> Verdict {
        fragments::later(self, hook, scratch, tables, clock)
    }
}
