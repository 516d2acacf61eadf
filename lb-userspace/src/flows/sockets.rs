//! Ends connected UDP sockets whose backend has left: the program's next call on them fails (`ECONNABORTED`), it makes
//! another socket, and the socket hook chooses a living backend.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::{Port, SocketFlowEntry, SocketFlowKey, V4, V6};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};

use crate::{
    maps::bpf::{Plain, io_error},
    netlink::Netlink,
};

/// What became of the sockets of some backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// How many sockets were ended.
    pub count: usize,
    /// Set where the kernel refuses in general (`CONFIG_INET_DIAG_DESTROY` is off).
    pub unsupported: bool,
}

/// Ends the connected UDP sockets of this network namespace that the socket hook has sent to one of `backends`;
/// sockets that a program connected to a backend's own address stay.
pub fn destroy(maps: &Path, backends: &[SocketAddr]) -> io::Result<Destroyed> {
    let sent = SentSockets::open(maps).map_err(io_error)?;
    let mut destroyed = Destroyed::default();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for socket in connected(family)? {
            let peer = peer(&socket);
            if !backends.contains(&peer) || !sent.has(socket.cookie, peer) {
                continue;
            }
            match end(family, socket) {
                Ok(()) => destroyed.count += 1,
                // It was closed meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    destroyed.unsupported = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(destroyed)
}

/// Whether this kernel can end sockets: tried on one that is made for it.
pub fn can_destroy() -> io::Result<bool> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let own = socket.local_addr()?;
    socket.connect(own)?;
    let found = connected(libc::AF_INET)?
        .into_iter()
        .find(|found| peer(found) == own)
        .ok_or_else(|| io::Error::other("the kernel does not list its own UDP sockets"))?;
    match end(libc::AF_INET, found) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The connected UDP sockets of this network namespace.
fn connected(family: libc::c_int) -> io::Result<Vec<SocketId>> {
    let any = if family == libc::AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    let dump = Netlink::sock_diag()?.dump(question(family, any))?;
    Ok(dump
        .messages
        .into_iter()
        .filter_map(|message| {
            let SockDiagMessage::InetResponse(response) = message else {
                return None;
            };
            Some(response.header.socket_id)
        })
        .collect())
}

fn end(family: libc::c_int, socket: SocketId) -> io::Result<()> {
    let message = SockDiagDestroy::new(question(family, socket));
    Netlink::sock_diag()?.request(message, 0)
}

fn question(family: libc::c_int, socket_id: SocketId) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family: u8::try_from(family).unwrap_or_default(),
        protocol: u8::try_from(libc::IPPROTO_UDP).unwrap_or_default(),
        extensions: ExtensionFlags::empty(),
        // What a connected UDP socket counts as.
        states: StateFlags::ESTABLISHED,
        socket_id,
    })
}

/// The other end; an IPv4 address where a v6 socket talks to one.
fn peer(socket: &SocketId) -> SocketAddr {
    SocketAddr::new(
        socket.destination_address.to_canonical(),
        socket.destination_port,
    )
}

type Table<F> = HashMap<MapData, Plain<SocketFlowKey<F>>, Plain<SocketFlowEntry<F>>>;

/// `SOCKET_FLOWS`: which sockets the hooks have sent where.
struct SentSockets {
    v4: Table<V4>,
    v6: Table<V6>,
}

impl SentSockets {
    fn open(maps: &Path) -> Result<Self, MapError> {
        let pinned = |name| MapData::from_pin(maps.join(name)).and_then(Map::from_map_data);
        Ok(Self {
            v4: pinned("SOCKET_FLOWS_V4")?.try_into()?,
            v6: pinned("SOCKET_FLOWS_V6")?.try_into()?,
        })
    }
    fn has(&self, cookie: [u8; 8], peer: SocketAddr) -> bool {
        // The kernel writes the lower half first; so does memory on a little-endian machine.
        let cookie = u64::from_le_bytes(cookie);
        let port = Port::new(peer.port());
        match peer.ip() {
            IpAddr::V4(address) => {
                let key = SocketFlowKey::<V4>::new(cookie, address.into(), port);
                self.v4.get(&Plain(key), 0).is_ok()
            }
            IpAddr::V6(address) => {
                let key = SocketFlowKey::<V6>::new(cookie, address.into(), port);
                self.v6.get(&Plain(key), 0).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v6_socket_that_talks_ipv4_has_an_ipv4_peer() {
        let socket = SocketId {
            destination_address: "::ffff:10.244.1.2".parse().unwrap(),
            destination_port: 53,
            ..SocketId::new_v6()
        };
        assert_eq!(peer(&socket), "10.244.1.2:53".parse().unwrap());
    }
}
