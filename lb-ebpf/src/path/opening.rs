//! A new flow, in three steps: choose a backend, reserve a tuple for its replies, remember both directions. Between the steps
//! `entries.own` is what the flow's request entry is to be. (Each is a subprogram of its own: in one piece they would ask
//! more stack than a program has.)
use lb_common::{
    DeviceFlags, DropReason, FlowEntry, FlowFlags, FrontendFlags, Tuple, hash::tuple_hash,
};

use crate::{
    bytes::{
        headers::Wire,
        packet::{Forwarding, OnBridge, Packet},
    },
    context::{
        Context,
        environment::Environment,
        scratch::{Entries, FamilyMemory},
    },
    flow::{backend::Selected, claim, make},
    path::origin::{is_at, is_from_pod, on_bridge},
    service::{
        affinity::{self, Client},
        frontends::frontend_key,
        masquerade,
        select::{for_inside, select},
    },
};

/// Chooses a backend for a flow to `entries.frontend`. Afterwards `entries.own` is what its entry is to be.
#[inline(always)]
pub fn choose<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: Wire,
    P: Packet + Forwarding<F>,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let (key, env, packet) = (&parsed.tuple, &mut *cx.env, &mut *cx.packet);
    let now = env.now();
    let is_of_node = is_at(packet, env, DeviceFlags::NODE);
    let is_strange = !is_from_pod(packet, env, key);
    let frontend = if is_strange {
        entries.frontend
    } else {
        for_inside(env, &frontend_key(key), entries.frontend)
    };
    // With the frontend's own address comes a process of a node that has it on a device: the node's own, as for kube-proxy.
    if frontend.flags.has(FrontendFlags::SOURCE_RANGES)
        && key.source != key.destination
        && !env.is_in_source_range(frontend.service_id, &key.source)
    {
        return Err(DropReason::SourceNotAllowed);
    }
    let masquerades = frontend.flags.has(FrontendFlags::MASQUERADE)
        || is_strange && frontend.flags.has(FrontendFlags::MASQUERADE_STRANGERS);
    let hash = tuple_hash(key);
    let client = Client {
        address: client_address(key, is_of_node),
        service_id: frontend.service_id,
        now,
    };
    recall(env, &client, entries);
    let kept = entries.kept;
    let selected = if kept != 0
        && let Some(backend) = env.backend(kept)
    {
        Selected { id: kept, backend }
    } else {
        let random = env.random();
        match select(env, frontend.service_id, random, hash) {
            Err(DropReason::NoBackend) if frontend.flags.has(FrontendFlags::BACKENDS_ELSEWHERE) => {
                return Err(DropReason::NoLocalBackend);
            }
            selected => selected?,
        }
    };
    let flags = if is_of_node {
        FlowFlags::NODE
    } else if masquerades || key.source == selected.backend.address {
        FlowFlags::MASQUERADE
    } else if on_bridge(packet, env, key.source, selected.backend.address) != OnBridge::No {
        FlowFlags::BRIDGED
    } else {
        FlowFlags::NONE
    };
    make::make_request(&selected, flags, &mut entries.own, now);
    Ok(())
}

/// Finds a tuple for the replies of the flow whose entry is to be `entries.own`: [`claim::reserve`].
#[inline(always)]
pub fn reserve<F: Wire, E: Environment<F>>(
    scratch: &mut FamilyMemory<'_, F>,
    env: &mut E,
) -> Result<(), DropReason> {
    let now = env.now();
    let (parsed, entries) = scratch.parts();
    claim::reserve(env, &parsed.tuple, entries, now)
}

/// Remembers the flow whose request entry is `entries.own`, and whose reply half stands at `entries.other_key`. Afterwards
/// `entries.own` is as it is to be applied.
#[inline(always)]
pub fn remember<F: Wire, E: Environment<F>>(
    scratch: &mut FamilyMemory<'_, F>,
    env: &mut E,
) -> Result<(), DropReason> {
    let (parsed, entries) = scratch.parts();
    let key = &parsed.tuple;
    let now = env.now();
    make::remember(env, key, entries)?;
    if entries.has_affinity != 0 {
        let is_of_node = entries.own.flags.has(FlowFlags::NODE);
        let client = Client {
            address: client_address(key, is_of_node),
            service_id: entries.own.service_id,
            now,
        };
        let FlowEntry {
            backend_id,
            generation,
            ..
        } = entries.own;
        affinity::note(env, &client, backend_id, generation);
    }
    if entries.own.flags.has(FlowFlags::MASQUERADE) {
        return masquerade::request(env, key, entries, now);
    }
    Ok(())
}

/// As whom affinity knows the client: processes of the node are one, as at their sockets.
#[inline(always)]
fn client_address<F: Wire>(key: &Tuple<F>, is_of_node: bool) -> F::Address {
    if is_of_node {
        F::UNSPECIFIED
    } else {
        key.source
    }
}

/// Leaves in `entries` which backend the client has, and whether it shall have one. (What is read back from there is
/// unknown to the verifier, so that the ways that lead here do not multiply with those that go on.)
#[inline(always)]
fn recall<F: Wire, E: Environment<F>>(env: &E, client: &Client<F>, entries: &mut Entries<F>) {
    (entries.kept, entries.has_affinity) = (0, 0);
    let Some(service) = env.service(client.service_id) else {
        return;
    };
    if affinity::applies(&service) {
        entries.has_affinity = 1;
        if let Some(kept) = affinity::kept(env, &service, client) {
            entries.kept = kept.selected.id;
        }
    }
}
