//! Translation without a packet: a process of the node dials a frontend, and its socket talks to a backend from the
//! start. The socket remembers what the process asked for, so that it never sees the backend's address.
use lb_common::{
    Counter, DropReason, FrontendFlags, FrontendKey, IpFamily, Port, Protocol, SocketFlowEntry,
    SocketFlowKey, hash::socket_hash,
};

use crate::{
    context::environment::{Decision, Environment},
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
    /// IANA protocol number; 0 for one without ports.
    pub protocol: u8,
    /// The peer's address.
    pub address: F::Address,
    /// The peer's port.
    pub port: Port,
    /// Index of the device that the socket is bound to (`SO_BINDTODEVICE`), whatever the routes say; zero for none.
    pub bound_device: u32,
}

impl<F: IpFamily> Call<F> {
    fn key(&self) -> SocketFlowKey<F> {
        SocketFlowKey::new(self.cookie, self.address, self.port)
    }
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
pub fn request<F, E>(env: &mut E, call: &Call<F>, choice: Choice) -> SocketVerdict<F>
where
    F: IpFamily,
    E: Environment<F>,
{
    let frontend_key = FrontendKey::new(call.address, call.port, call.protocol);
    // The key of a socket without a protocol that has ports (of ICMP, for pings) is that of what is said of the address.
    let frontend = Protocol::from_number(call.protocol).and_then(|_| env.frontend(&frontend_key));
    let Some(frontend) = frontend.filter(|it| !it.flags.has(FrontendFlags::DIRECT)) else {
        return match frontends::refusal(env, call.address) {
            None => SocketVerdict::Pass,
            // The client at this address sent the request.
            Some(DropReason::NoSuchService) if env.socket_flow(&call.key()).is_some() => {
                SocketVerdict::Pass
            }
            Some(reason) => fail(env, reason),
        };
    };
    if call.protocol == Protocol::Tcp.number() && env.is_api_thread() {
        let of_address = env.frontend(&FrontendKey::any_port(call.address));
        if !of_address.is_some_and(|it| it.flags.has(FrontendFlags::REFUSES)) {
            return SocketVerdict::Pass;
        }
    }
    env.tell(&Decision::Frontend(frontend_key, frontend));
    // A process of the node is a client inside the cluster.
    let frontend = for_inside(env, &frontend_key, frontend);
    if call.protocol == Protocol::Udp.number()
        && frontend.flags.has(FrontendFlags::AT_NODE_DEVICE)
        && call.bound_device == 0
    {
        return SocketVerdict::Pass;
    }
    if frontend.flags.has(FrontendFlags::NODE_EXCLUDED) {
        return fail(env, DropReason::SourceNotAllowed);
    }
    let word = match choice {
        Choice::Connection => env.random(),
        Choice::Datagram => socket_hash(call.cookie, call.address.as_ref(), call.port.word()),
    };
    let client = Client {
        address: F::UNSPECIFIED,
        service_id: frontend.service_id,
        now: env.now(),
    };
    let service = env.service(frontend.service_id);
    let (kept, sticks) = match service {
        Some(service) if affinity::applies(&service) => {
            (affinity::kept(env, &service, &client), true)
        }
        _ => (None, false),
    };
    let (selected, is_noted) = match kept {
        // A datagram is no new flow, but a socket that sends on shall not lose its backend: once a second will do.
        Some(kept) => (
            Ok(kept.selected),
            choice == Choice::Datagram && !client.now.is_after(kept.noted, 1),
        ),
        None => (select(env, frontend.service_id, word, word), !sticks),
    };
    let selected = match selected {
        Ok(selected) => selected,
        Err(DropReason::NoBackend) if frontend.flags.has(FrontendFlags::BACKENDS_ELSEWHERE) => {
            return fail(env, DropReason::NoLocalBackend);
        }
        Err(reason) => return fail(env, reason),
    };
    let (address, port) = (selected.backend.address, selected.backend.port);
    let remembered = SocketFlowEntry::new(call.address, call.port);
    if !env.set_socket_flow(&SocketFlowKey::new(call.cookie, address, port), &remembered) {
        env.count(DropReason::FlowNotStored.counter());
        return SocketVerdict::Failed(DropReason::FlowNotStored);
    }
    if !is_noted {
        let generation = selected.backend.generation;
        affinity::note(env, &client, selected.id, generation);
    }
    env.count(Counter::SocketRequests);
    SocketVerdict::Translated(address, port)
}

/// The call fails, and is counted.
#[inline(always)]
fn fail<F: IpFamily, E: Environment<F>>(env: &mut E, reason: DropReason) -> SocketVerdict<F> {
    env.count(if reason.is_by_rule() {
        Counter::SocketDenied
    } else {
        Counter::SocketRefused
    });
    SocketVerdict::Failed(reason)
}

/// `recvmsg`: replaces the backend's address by the frontend's. A client whose address is in a ServiceCIDR but belongs to no
/// Service can be answered (see `path/unserved.rs`).
#[inline(always)]
pub fn received<F: IpFamily, E: Environment<F>>(env: &mut E, call: &Call<F>) -> SocketVerdict<F> {
    let verdict = reply(env, call);
    if verdict == SocketVerdict::Pass
        && frontends::refusal(env, call.address) == Some(DropReason::NoSuchService)
    {
        let asked = SocketFlowEntry::new(call.address, call.port);
        let _not_stored = env.set_socket_flow(&call.key(), &asked);
    }
    verdict
}

/// `getpeername`: a backend becomes the frontend that was dialled.
#[inline(always)]
pub fn reply<F: IpFamily, E: Environment<F>>(env: &mut E, call: &Call<F>) -> SocketVerdict<F> {
    match env.socket_flow(&call.key()) {
        Some(entry) if entry.address == call.address && entry.port == call.port => {
            SocketVerdict::Pass
        }
        Some(entry) => {
            env.count(Counter::SocketReplies);
            SocketVerdict::Translated(entry.address, entry.port)
        }
        None => SocketVerdict::Pass,
    }
}
