//! Translation without a packet: a process of the node dials a frontend, and its socket talks to a backend from the
//! start. The socket remembers what the process asked for, so that it never sees the backend's address.
use lb_common::{
    Counter, DropReason, FrontendFlags, FrontendKey, IpFamily, Port, SocketFlowEntry,
    SocketFlowKey, hash::socket_hash,
};

use crate::{
    context::{clock::Clock, tables::Tables},
    service::{
        affinity::{self, Client},
        frontends,
        select::{for_inside, select},
    },
};

/// A socket and the peer its process names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<F: IpFamily> {
    /// The socket's cookie.
    pub cookie: u64,
    /// IANA protocol number.
    pub protocol: u8,
    /// The peer's address.
    pub address: F::Address,
    /// The peer's port.
    pub port: Port,
}

/// What becomes of a call.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketVerdict<F: IpFamily> {
    /// Not ours: it goes where it was meant to go.
    Pass,
    /// It goes to this address and port.
    Translated(F::Address, Port),
    /// The call fails: as if a firewall were in the way where a rule says so ([`DropReason::is_by_rule`]), otherwise as
    /// if the port were closed.
    Failed(DropReason),
}

/// How long a choice holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// For the life of a connection: at random.
    Connection,
    /// For one datagram: a socket's datagrams to one frontend go to one backend while the backends stay the same.
    Datagram,
}

/// `connect` and `sendmsg`: a frontend becomes a backend.
#[inline(always)]
pub fn request<F, T, C>(
    tables: &mut T,
    clock: &mut C,
    call: &Call<F>,
    choice: Choice,
) -> SocketVerdict<F>
where
    F: IpFamily,
    T: Tables<F>,
    C: Clock,
{
    let frontend_key = FrontendKey::new(call.address, call.port, call.protocol);
    let Some(frontend) = tables.frontend(&frontend_key) else {
        return match frontends::refusal(tables, call.address) {
            None => SocketVerdict::Pass,
            Some(reason) => fail(tables, reason),
        };
    };
    // A process of the node is a client inside the cluster.
    let frontend = for_inside(tables, &frontend_key, frontend);
    if frontend.flags.has(FrontendFlags::NODE_EXCLUDED) {
        return fail(tables, DropReason::SourceNotAllowed);
    }
    let word = match choice {
        Choice::Connection => clock.random(),
        Choice::Datagram => socket_hash(call.cookie, call.address.as_ref(), call.port.word()),
    };
    let client = Client {
        address: F::UNSPECIFIED,
        service_id: frontend.service_id,
        now: clock.now(),
    };
    let service = tables.service(frontend.service_id);
    let (kept, sticks) = match service {
        Some(service) if affinity::applies(&service) => {
            (affinity::kept(tables, &service, &client), true)
        }
        _ => (None, false),
    };
    let (selected, is_noted) = match kept {
        // A datagram is no new flow, but a socket that sends on shall not lose its backend: once a second will do.
        Some(kept) => (
            Ok(kept.selected),
            choice == Choice::Datagram && !client.now.is_after(kept.noted, 1),
        ),
        None => (select(tables, frontend.service_id, word, word), !sticks),
    };
    let selected = match selected {
        Ok(selected) => selected,
        Err(DropReason::NoBackend) if frontend.flags.has(FrontendFlags::BACKENDS_ELSEWHERE) => {
            return fail(tables, DropReason::NoLocalBackend);
        }
        Err(reason) => return fail(tables, reason),
    };
    let (address, port) = (selected.backend.address, selected.backend.port);
    let remembered = SocketFlowEntry::new(call.address, call.port);
    if !tables.set_socket_flow(&SocketFlowKey::new(call.cookie, address, port), &remembered) {
        tables.count(DropReason::FlowNotStored.counter());
        return SocketVerdict::Failed(DropReason::FlowNotStored);
    }
    if !is_noted {
        let generation = selected.backend.generation;
        affinity::note(tables, &client, selected.id, generation);
    }
    tables.count(Counter::SocketRequests);
    SocketVerdict::Translated(address, port)
}

/// The call fails, and is counted.
#[inline(always)]
fn fail<F: IpFamily, T: Tables<F>>(tables: &mut T, reason: DropReason) -> SocketVerdict<F> {
    tables.count(if reason.is_by_rule() {
        Counter::SocketDenied
    } else {
        Counter::SocketRefused
    });
    SocketVerdict::Failed(reason)
}

/// `recvmsg` and `getpeername`: a backend becomes the frontend that was dialled.
#[inline(always)]
pub fn reply<F: IpFamily, T: Tables<F>>(tables: &mut T, call: &Call<F>) -> SocketVerdict<F> {
    match tables.socket_flow(&SocketFlowKey::new(call.cookie, call.address, call.port)) {
        Some(entry) => {
            tables.count(Counter::SocketReplies);
            SocketVerdict::Translated(entry.address, entry.port)
        }
        None => SocketVerdict::Pass,
    }
}
