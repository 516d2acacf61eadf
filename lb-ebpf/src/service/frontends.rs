//! What a packet is: of a known flow, for a frontend, for nobody at all, or others' affair.
use lb_common::{
    DropReason, FrontendEntry, FrontendFlags, FrontendKey, IpFamily, ServiceId, Tuple,
};

use crate::{
    bytes::headers::Wire,
    context::{
        environment::{Decision, Environment, FlowHandle as _},
        scratch::FamilyMemory,
    },
    flow::find::find,
};

/// No service: ids begin at one. (A plain number, where an `Option` would be two for the verifier.)
pub const NO_SERVICE: ServiceId = 0;

/// What is no frontend.
pub const NOBODYS: FrontendEntry = FrontendEntry {
    service_id: NO_SERVICE,
    flags: FrontendFlags::NONE,
};

/// The frontend a packet is for, if packets may be for it.
#[inline(always)]
pub fn frontend_of<F: Wire, E: Environment<F>>(env: &E, key: &Tuple<F>) -> FrontendEntry {
    let key = frontend_key(key);
    let Some(frontend) = env.frontend(&key) else {
        return NOBODYS;
    };
    env.tell(&Decision::Frontend(key, frontend));
    if frontend.flags.has(FrontendFlags::PROCESSES_ONLY) {
        NOBODYS
    } else {
        frontend
    }
}

/// Whether the packet's destination is a frontend of this service, or of the same service port for the clients of the
/// other traffic policy.
#[inline(always)]
fn is_frontend_of<F: Wire, E: Environment<F>>(
    env: &E,
    key: &Tuple<F>,
    service_id: ServiceId,
) -> bool {
    let now = frontend_of(env, key).service_id;
    now == service_id
        || now != NO_SERVICE && env.service(now).is_some_and(|it| it.sibling == service_id)
}

/// A UDP flow ends when its frontend is given to another service port, or removed.
///
/// # Errors
/// If that has happened to the frontend of the flow whose request entry is `entries.own`. Otherwise the entry notes that it
/// was looked up.
#[inline(always)]
pub fn follow<F: Wire, E: Environment<F>>(
    scratch: &mut FamilyMemory<'_, F>,
    env: &mut E,
) -> Result<(), DropReason> {
    let (parsed, entries) = scratch.parts();
    // Before the frontend: one that changes after this read is looked up once more.
    let epoch = env.frontend_epoch();
    env.order_reads();
    if !is_frontend_of(env, &parsed.tuple, entries.own.service_id) {
        return Err(DropReason::NoFlow);
    }
    if let Some(found) = find(env, &parsed.tuple) {
        found.handle.set_epoch(epoch);
    }
    Ok(())
}

/// What FRONTENDS has the packet's destination under.
#[inline(always)]
pub fn frontend_key<F: Wire>(key: &Tuple<F>) -> FrontendKey<F> {
    FrontendKey::new(key.destination, key.destination_port, key.protocol_number())
}

/// Why nobody may have what is sent to an address, at a port that is no frontend's; `None` if it is others' affair.
///
/// For most addresses one comparison tells that they are no Service's.
#[inline(always)]
pub fn refusal<F: IpFamily, E: Environment<F>>(env: &E, address: F::Address) -> Option<DropReason> {
    let networks = env.networks()?;
    if !networks.around_services.agrees(&address) {
        return None;
    }
    if let Some(entry) = env.frontend(&FrontendKey::any_port(address)) {
        let refuses = entry.flags.has(FrontendFlags::REFUSES);
        return refuses.then_some(DropReason::NoSuchPort);
    }
    let mut prefixes = networks.service_prefixes.iter();
    let is_for_services = prefixes.any(|prefix| prefix.contains(&address));
    is_for_services.then_some(DropReason::NoSuchService)
}
