//! Sockets whose packets carry IPv4 options or IPv6 extension headers, and what a socket is called in the kernel.
#![expect(
    unsafe_code,
    reason = "setsockopt and getsockopt with an option's bytes have no safe wrapper"
)]

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Three no-operations and the end of the list: the smallest options there are (RFC 791, 3.1).
const IPV4_OPTIONS: &[u8] = &[1, 1, 1, 0];

/// An extension header of 8 bytes that holds padding only (RFC 8200, 4.2): next header and length are
/// the kernel's to fill or 0, then `PadN` of four bytes.
const IPV6_PADDING: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];

/// What a socket's packets carry between the IP header and TCP or UDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extra {
    /// IPv4 options.
    Ipv4Options,
    /// An IPv6 hop-by-hop header.
    HopByHop,
    /// An IPv6 destination options header.
    Destination,
    /// Both IPv6 headers.
    Both,
}

/// Has `socket` send `extra` with every packet. Needs root.
fn add(socket: &impl AsFd, extra: Extra) -> Result<()> {
    let (ip, ipv6) = (libc::IPPROTO_IP, libc::IPPROTO_IPV6);
    match extra {
        Extra::Ipv4Options => set(socket, ip, libc::IP_OPTIONS, IPV4_OPTIONS),
        Extra::HopByHop => set(socket, ipv6, libc::IPV6_HOPOPTS, IPV6_PADDING),
        Extra::Destination => set(socket, ipv6, libc::IPV6_DSTOPTS, IPV6_PADDING),
        Extra::Both => {
            add(socket, Extra::HopByHop)?;
            add(socket, Extra::Destination)
        }
    }
}

fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &[u8]) -> Result<()> {
    let length = libc::socklen_t::try_from(value.len())?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: pointer and length describe `value`, which outlives the call; the descriptor is borrowed.
    let result =
        unsafe { libc::setsockopt(descriptor, level, name, value.as_ptr().cast(), length) };
    if result != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("setsockopt({level}, {name})"));
    }
    Ok(())
}

/// Connects by TCP with `extra` in every packet, the SYN included; each step may take `limit`.
pub fn connect_tcp(to: SocketAddr, extra: Extra, limit: Duration) -> Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let made: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    add(&made, extra)?;
    // The limit of sending is that of connect too (socket(7)).
    let seconds = TimeVal::new(limit.as_secs().try_into()?, 0);
    nix::sys::socket::setsockopt(&made, sockopt::SendTimeout, &seconds)?;
    connect(made.as_raw_fd(), &SockaddrStorage::from(to))
        .with_context(|| format!("connect to {to} with {extra:?}"))?;
    let stream = TcpStream::from(made);
    stream.set_read_timeout(Some(limit))?;
    Ok(stream)
}

/// Has a UDP socket send `extra` with every datagram.
pub fn add_to_udp(socket: &UdpSocket, extra: Extra) -> Result<()> {
    add(socket, extra)
}

/// Has a UDP socket refuse datagrams that a packet cannot hold, and mark all as not to be fragmented.
pub fn never_fragment(socket: &UdpSocket) -> Result<()> {
    let (ip, ipv6) = (libc::IPPROTO_IP, libc::IPPROTO_IPV6);
    if socket.local_addr()?.is_ipv4() {
        let value = libc::IP_PMTUDISC_DO.to_ne_bytes();
        set(socket, ip, libc::IP_MTU_DISCOVER, &value)
    } else {
        let value = libc::IPV6_PMTUDISC_DO.to_ne_bytes();
        set(socket, ipv6, libc::IPV6_MTU_DISCOVER, &value)
    }
}

/// The path MTU that a connected socket knows of.
pub fn path_mtu(socket: &UdpSocket) -> Result<u32> {
    let (level, name) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    Ok(u32::from_ne_bytes(get(socket, level, name)?))
}

/// The socket's cookie (`bpf_get_socket_cookie`).
pub fn cookie(socket: &impl AsFd) -> Result<u64> {
    Ok(u64::from_ne_bytes(get(
        socket,
        libc::SOL_SOCKET,
        libc::SO_COOKIE,
    )?))
}

fn get<const LENGTH: usize>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> Result<[u8; LENGTH]> {
    let mut value = [0; LENGTH];
    let mut length = libc::socklen_t::try_from(LENGTH)?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            descriptor,
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("getsockopt({level}, {name})"));
    }
    Ok(value)
}

/// A connection from a certain port; when it is closed it resets, so that the port is free at once. A child that another
/// thread is just starting holds a copy of every socket until it executes its program: so long the port may still be taken.
pub fn connect_from(port: u16, to: SocketAddr) -> Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    nix::sys::socket::setsockopt(&made, sockopt::ReuseAddr, &true)?;
    let reset = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&made, sockopt::Linger, &reset)?;
    let seconds = TimeVal::new(10, 0);
    nix::sys::socket::setsockopt(&made, sockopt::SendTimeout, &seconds)?;
    let own = SockaddrStorage::from(crate::traffic::udp::any_like(to, port));
    nix::sys::socket::bind(made.as_raw_fd(), &own).with_context(|| format!("bind port {port}"))?;
    for left in (0..1000).rev() {
        match connect(made.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EADDRNOTAVAIL) if left > 0 => {
                std::thread::sleep(Duration::from_millis(5));
            }
            connected => {
                connected.with_context(|| format!("connect from port {port} to {to}"))?;
                break;
            }
        }
    }
    Ok(made.into())
}

/// A connection that one end believes in and nobody else: a socket that has shaken no hands (`TCP_REPAIR`). Needs root.
pub fn imagine_connection(to: SocketAddr) -> Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let repair = |is_on: bool| {
        let value = libc::c_int::from(is_on).to_ne_bytes();
        set(&made, libc::IPPROTO_TCP, libc::TCP_REPAIR, &value)
    };
    repair(true)?;
    connect(made.as_raw_fd(), &SockaddrStorage::from(to))
        .with_context(|| format!("imagine a connection to {to}"))?;
    repair(false)?;
    Ok(made.into())
}
