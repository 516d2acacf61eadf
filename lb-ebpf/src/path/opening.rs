//! A new flow, in three steps: choose a backend, reserve a tuple for its replies, remember both directions. Between the steps
//! `entries.own` is what the flow's request entry is to be. (Each step is a detour of its own: in one piece they would ask
//! more stack than a program has.)
use lb_common::{DropReason, FlowEntry, FlowFlags, FrontendFlags, hash::tuple_hash};

use crate::{
    bytes::{
        headers::Wire,
        packet::{Forwarding, OnBridge, Packet},
        parse::Parsed,
    },
    context::{clock::Clock, scratch::Entries, tables::Tables},
    flow::{
        backend::Selected,
        claim,
        make::{self, make_request},
    },
    path::origin::{is_from_pod, on_bridge},
    service::{
        affinity::{self, Client},
        frontends::frontend_key,
        masquerade,
        select::{for_inside, select},
    },
};

/// Chooses a backend for a flow to `entries.frontend`. Afterwards `entries.own` is what its entry is to be.
#[inline(always)]
pub fn choose<F, P, T, C>(
    packet: &mut P,
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    tables: &mut T,
    clock: &mut C,
) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet + Forwarding<F> + ?Sized,
    T: Tables<F>,
    C: Clock,
{
    let key = &parsed.tuple;
    let now = clock.now();
    let is_strange = !is_from_pod(packet, tables, key);
    let frontend = if is_strange {
        entries.frontend
    } else {
        for_inside(tables, &frontend_key(key), entries.frontend)
    };
    if frontend.flags.has(FrontendFlags::SOURCE_RANGES)
        && !tables.is_in_source_range(frontend.service_id, &key.source)
    {
        return Err(DropReason::SourceNotAllowed);
    }
    let masquerades = frontend.flags.has(FrontendFlags::MASQUERADE)
        || is_strange && frontend.flags.has(FrontendFlags::MASQUERADE_STRANGERS);
    let hash = tuple_hash(key);
    let client = Client {
        address: key.source,
        service_id: frontend.service_id,
        now,
    };
    recall(tables, &client, entries);
    let kept = entries.kept;
    let selected = if kept != 0
        && let Some(backend) = tables.backend(kept)
    {
        Selected { id: kept, backend }
    } else {
        match select(tables, frontend.service_id, clock.random(), hash) {
            Err(DropReason::NoBackend) if frontend.flags.has(FrontendFlags::BACKENDS_ELSEWHERE) => {
                return Err(DropReason::NoLocalBackend);
            }
            selected => selected?,
        }
    };
    let flags = if masquerades || key.source == selected.backend.address {
        FlowFlags::MASQUERADE
    } else if on_bridge(packet, tables, key.source, selected.backend.address) != OnBridge::No {
        FlowFlags::BRIDGED
    } else {
        FlowFlags::NONE
    };
    make_request(&selected, flags, &mut entries.own, now);
    Ok(())
}

/// Finds a tuple for the replies of the flow whose entry is to be `entries.own`: [`flow::reserve`].
#[inline(always)]
pub fn reserve<F: Wire, T: Tables<F>, C: Clock>(
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    tables: &mut T,
    clock: &mut C,
) -> Result<(), DropReason> {
    claim::reserve(tables, &parsed.tuple, entries, clock.now())
}

/// Remembers the flow whose request entry is `entries.own`, and whose reply half stands at `entries.other_key`. Afterwards
/// `entries.own` is as it is to be applied.
#[inline(always)]
pub fn remember<F: Wire, T: Tables<F>, C: Clock>(
    parsed: &Parsed<F>,
    entries: &mut Entries<F>,
    tables: &mut T,
    clock: &mut C,
) -> Result<(), DropReason> {
    let key = &parsed.tuple;
    let now = clock.now();
    make::remember(tables, key, entries)?;
    if entries.sticks != 0 {
        let client = Client {
            address: key.source,
            service_id: entries.own.service_id,
            now,
        };
        let FlowEntry {
            backend_id,
            generation,
            ..
        } = entries.own;
        affinity::note(tables, &client, backend_id, generation);
    }
    if entries.own.flags.has(FlowFlags::MASQUERADE) {
        return masquerade::request(tables, key, entries, now);
    }
    Ok(())
}

/// Leaves in `entries` which backend the client has, and whether it shall have one. (What is read back from there is
/// unknown to the verifier, so that the ways that lead here do not multiply with those that go on.)
#[inline(always)]
fn recall<F: Wire, T: Tables<F>>(tables: &T, client: &Client<F>, entries: &mut Entries<F>) {
    (entries.kept, entries.sticks) = (0, 0);
    let Some(service) = tables.service(client.service_id) else {
        return;
    };
    if affinity::applies(&service) {
        entries.sticks = 1;
        if let Some(kept) = affinity::kept(tables, &service, client) {
            entries.kept = kept.selected.id;
        }
    }
}
