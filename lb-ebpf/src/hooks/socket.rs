//! cgroup socket hooks: calls of the node's own processes. Other namespaces' calls pass untouched.
use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use lb_common::{DropReason, IpFamily, Ipv4Address, Ipv6Address, Port, Protocol, V4, V6};
use lb_ebpf::{
    context::environment::Environment,
    path::socket::{Call, Choice, SocketVerdict, received, reply, request},
};

use super::{environment::Kernel, maps::config};

/// The call goes on.
const ALLOW: i32 = 1;
/// The call fails: with the error set before, or with EPERM.
const DENY: i32 = 0;
/// What a closed port answers.
const ECONNREFUSED: i32 = 111;

/// The first three words of `::ffff:a.b.c.d`.
const MAPPED: [u32; 3] = [0, 0, 0xffffu32.to_be()];

macro_rules! hooks {
    ($($(#[$doc:meta])* $attach:ident => $run:ident($argument:expr);)+) => {$(
        $(#[$doc])*
        #[cgroup_sock_addr($attach)]
        pub fn $attach(ctx: SockAddrContext) -> i32 {
            $run(&ctx, $argument)
        }
    )+};
}
hooks! {
    /// `connect()` of an IPv4 socket.
    connect4 => request_v4(Choice::Connection);
    /// `connect()` of an IPv6 socket.
    connect6 => request_v6(Choice::Connection);
    /// `sendmsg()` of an unconnected IPv4 UDP socket.
    sendmsg4 => request_v4(Choice::Datagram);
    /// `sendmsg()` of an unconnected IPv6 UDP socket.
    sendmsg6 => request_v6(Choice::Datagram);
    /// `recvmsg()` of an IPv4 UDP socket.
    recvmsg4 => reply_v4(Reply::Datagram);
    /// `recvmsg()` of an IPv6 UDP socket.
    recvmsg6 => reply_v6(Reply::Datagram);
    /// `getpeername()` of an IPv4 socket.
    getpeername4 => reply_v4(Reply::Name);
    /// `getpeername()` of an IPv6 socket.
    getpeername6 => reply_v6(Reply::Name);
}

/// A call of the node's own, or `None`.
#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> Option<u64> {
    // SAFETY: the context is valid while the program runs.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if netns != config!(netns_cookie) {
        return None;
    }
    // SAFETY: as above.
    Some(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) })
}

#[inline(always)]
fn protocol(address: &bpf_sock_addr) -> u8 {
    if address.protocol == u32::from(Protocol::Tcp.number()) {
        Protocol::Tcp.number()
    } else if address.protocol == u32::from(Protocol::Udp.number()) {
        Protocol::Udp.number()
    } else {
        0
    }
}

/// The port is a 16-bit field in network order, shown as a word.
#[inline(always)]
fn port(address: &bpf_sock_addr) -> Port {
    let [low, high, _, _] = address.user_port.to_ne_bytes();
    Port::from_wire([low, high])
}

#[inline(always)]
fn bound_device(address: &bpf_sock_addr) -> u32 {
    // SAFETY: the call's socket is there as long as the program runs.
    unsafe { (*address.__bindgen_anon_1.sk).bound_dev_if }
}

#[inline(always)]
fn port_word(port: Port) -> u32 {
    u32::from(port.word())
}

#[inline(always)]
fn call_v4(address: &bpf_sock_addr, cookie: u64) -> Call<V4> {
    Call {
        cookie,
        protocol: protocol(address),
        address: Ipv4Address([address.user_ip4]),
        port: port(address),
        bound_device: bound_device(address),
    }
}

#[inline(always)]
fn request_v4(ctx: &SockAddrContext, choice: Choice) -> i32 {
    let Some(cookie) = cookie(ctx) else {
        return ALLOW;
    };
    // SAFETY: the context is valid while the program runs, and this is the only reference to it.
    let address = unsafe { &mut *ctx.sock_addr };
    let call = call_v4(address, cookie);
    match request(&mut Kernel, &call, choice) {
        SocketVerdict::Pass => ALLOW,
        SocketVerdict::Failed(reason) => fail(reason),
        SocketVerdict::Translated(to, port) => {
            address.user_ip4 = to.0[0];
            address.user_port = port_word(port);
            ALLOW
        }
    }
}

#[inline(always)]
fn reply_v4(ctx: &SockAddrContext, kind: Reply) -> i32 {
    let Some(cookie) = cookie(ctx) else {
        return ALLOW;
    };
    // SAFETY: as in `request_v4`.
    let address = unsafe { &mut *ctx.sock_addr };
    let call = call_v4(address, cookie);
    if let SocketVerdict::Translated(from, port) = named(&call, kind) {
        address.user_ip4 = from.0[0];
        address.user_port = port_word(port);
    }
    ALLOW
}

/// What names a peer to the program.
#[derive(Clone, Copy)]
enum Reply {
    /// A datagram that it receives.
    Datagram,
    /// Its question for the name alone.
    Name,
}

#[inline(always)]
fn named<F: IpFamily>(call: &Call<F>, kind: Reply) -> SocketVerdict<F>
where
    Kernel: Environment<F>,
{
    match kind {
        Reply::Datagram => received(&mut Kernel, call),
        Reply::Name => reply(&mut Kernel, call),
    }
}

/// An IPv6 socket's peer: of the one family, or of the other in disguise (RFC 4291, section 2.5.5.2: Java and every
/// dual-stack program connect so).
enum Peer {
    V4(Call<V4>),
    V6(Call<V6>),
}

#[inline(always)]
fn peer_v6(address: &bpf_sock_addr, cookie: u64) -> Peer {
    let words = [
        address.user_ip6[0],
        address.user_ip6[1],
        address.user_ip6[2],
        address.user_ip6[3],
    ];
    let (protocol, port) = (protocol(address), port(address));
    let bound_device = bound_device(address);
    if [words[0], words[1], words[2]] == MAPPED {
        Peer::V4(Call {
            cookie,
            protocol,
            address: Ipv4Address([words[3]]),
            port,
            bound_device,
        })
    } else {
        Peer::V6(Call {
            cookie,
            protocol,
            address: Ipv6Address(words),
            port,
            bound_device,
        })
    }
}

#[inline(always)]
fn set_v6(address: &mut bpf_sock_addr, to: Ipv6Address, port: Port) {
    address.user_ip6[0] = to.0[0];
    address.user_ip6[1] = to.0[1];
    address.user_ip6[2] = to.0[2];
    address.user_ip6[3] = to.0[3];
    address.user_port = port_word(port);
}

#[inline(always)]
fn set_mapped(address: &mut bpf_sock_addr, to: Ipv4Address, port: Port) {
    address.user_ip6[3] = to.0[0];
    address.user_port = port_word(port);
}

#[inline(always)]
fn request_v6(ctx: &SockAddrContext, choice: Choice) -> i32 {
    let Some(cookie) = cookie(ctx) else {
        return ALLOW;
    };
    // SAFETY: as in `request_v4`.
    let address = unsafe { &mut *ctx.sock_addr };
    match peer_v6(address, cookie) {
        Peer::V4(call) => match request(&mut Kernel, &call, choice) {
            SocketVerdict::Pass => ALLOW,
            SocketVerdict::Failed(reason) => fail(reason),
            SocketVerdict::Translated(to, port) => {
                set_mapped(address, to, port);
                ALLOW
            }
        },
        Peer::V6(call) => match request(&mut Kernel, &call, choice) {
            SocketVerdict::Pass => ALLOW,
            SocketVerdict::Failed(reason) => fail(reason),
            SocketVerdict::Translated(to, port) => {
                set_v6(address, to, port);
                ALLOW
            }
        },
    }
}

#[inline(always)]
fn reply_v6(ctx: &SockAddrContext, kind: Reply) -> i32 {
    let Some(cookie) = cookie(ctx) else {
        return ALLOW;
    };
    // SAFETY: as in `request_v4`.
    let address = unsafe { &mut *ctx.sock_addr };
    match peer_v6(address, cookie) {
        Peer::V4(call) => {
            if let SocketVerdict::Translated(from, port) = named(&call, kind) {
                set_mapped(address, from, port);
            }
        }
        Peer::V6(call) => {
            if let SocketVerdict::Translated(from, port) = named(&call, kind) {
                set_v6(address, from, port);
            }
        }
    }
    ALLOW
}

/// Fails the call: as a closed port would, or where a rule says so, with EPERM.
#[inline(always)]
fn fail(reason: DropReason) -> i32 {
    if !reason.is_by_rule() {
        // SAFETY: the helper takes a number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}
