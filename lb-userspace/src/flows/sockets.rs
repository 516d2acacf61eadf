//! Ends connected UDP sockets whose backend has left: the program's next call on them fails (`ECONNABORTED`), it makes
//! another socket, and the socket hook chooses a living backend.
//!
//! Which sockets those are is read from the maps alone: those whose peer is no serving backend of the service at the
//! frontend that they have dialled. So nothing has to be remembered, and looking again finds what was missed, refused
//! or left behind by an earlier agent.
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use lb_common::{
    BackendEntry, FrontendEntry, FrontendKey, Port, Protocol, ServiceEntry, ServiceId,
    SocketFlowEntry, SocketFlowKey, V4, V6,
};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};

use crate::{
    bpf::{batch, io_error},
    maps::{MapFamily, bpf::Plain},
    netlink::Netlink,
};

/// What became of the sockets whose backend has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many sockets were ended.
    pub count: usize,
    /// How many were to be ended and are still there.
    pub remaining: usize,
    /// Why the first of those is.
    pub error: Option<String>,
    /// Set where the kernel refuses in general (`CONFIG_INET_DIAG_DESTROY` is off).
    pub unsupported: bool,
}

/// Ends the connected UDP sockets of this network namespace that the socket hooks have sent to somebody who is no
/// serving backend of the service at the frontend they have dialled; sockets that a program connected to a backend's own
/// address stay.
pub fn end_stranded(maps: &Path) -> io::Result<Ended> {
    // The sockets are read before the maps: what is compared with is never older than the hook's choice.
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        all.extend(
            connected(family)?
                .into_iter()
                .map(|socket| (family, socket)),
        );
    }
    let v4 = Table::<V4>::open(maps, "V4")?;
    let v6 = Table::<V6>::open(maps, "V6")?;
    let (mut sent_v4, mut sent_v6) = (Vec::new(), Vec::new());
    for (family, socket) in all {
        // The kernel writes the lower half first; so does memory on a little-endian machine.
        let cookie = u64::from_le_bytes(socket.cookie);
        let peer = peer(&socket);
        if let Some(dialled) = v4.dialled(cookie, peer)? {
            sent_v4.push(((family, socket), dialled, peer));
        } else if let Some(dialled) = v6.dialled(cookie, peer)? {
            sent_v6.push(((family, socket), dialled, peer));
        }
    }
    let stranded = v4
        .stranded(sent_v4)?
        .into_iter()
        .chain(v6.stranded(sent_v6)?);
    Ok(end_all(stranded, |(family, socket)| end(family, socket)))
}

/// Ends each of these sockets, whatever becomes of the others.
fn end_all<T>(sockets: impl IntoIterator<Item = T>, end: impl Fn(T) -> io::Result<()>) -> Ended {
    let mut ended = Ended::default();
    for socket in sockets {
        let Err(error) = end(socket) else {
            ended.count += 1;
            continue;
        };
        match error.raw_os_error() {
            // It was closed meanwhile.
            Some(libc::ENOENT) => {}
            Some(libc::EOPNOTSUPP) => ended.unsupported = true,
            _ => {
                ended.remaining += 1;
                ended.error.get_or_insert(error.to_string());
            }
        }
    }
    ended
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

type Hash<K, V> = HashMap<MapData, Plain<K>, Plain<V>>;

/// What the socket hooks of a family go by.
struct Table<'maps, F: MapFamily> {
    maps: &'maps Path,
    suffix: &'static str,
    sent: Hash<SocketFlowKey<F>, SocketFlowEntry<F>>,
    frontends: Hash<FrontendKey<F>, FrontendEntry>,
    services: Array<MapData, Plain<ServiceEntry>>,
}

impl<'maps, F: MapFamily> Table<'maps, F>
where
    SocketFlowKey<F>: bytemuck::Pod,
    SocketFlowEntry<F>: bytemuck::Pod,
    FrontendKey<F>: bytemuck::Pod,
    BackendEntry<F>: bytemuck::Pod,
{
    fn open(maps: &'maps Path, suffix: &'static str) -> io::Result<Self> {
        let pinned = |name: &str| {
            MapData::from_pin(maps.join(name))
                .and_then(Map::from_map_data)
                .map_err(io_error)
        };
        let of_family = |name| pinned(&format!("{name}_{suffix}"));
        Ok(Self {
            maps,
            suffix,
            sent: of_family("SOCKET_FLOWS")?.try_into().map_err(io_error)?,
            frontends: of_family("FRONTENDS")?.try_into().map_err(io_error)?,
            services: pinned("SERVICES")?.try_into().map_err(io_error)?,
        })
    }

    /// The frontend that a socket has dialled, if a hook has sent it to this peer.
    fn dialled(&self, cookie: u64, peer: SocketAddr) -> io::Result<Option<FrontendKey<F>>> {
        let Some(address) = F::address(peer.ip()) else {
            return Ok(None);
        };
        let key = SocketFlowKey::<F>::new(cookie, address, Port::new(peer.port()));
        let dialled = found(self.sent.get(&Plain(key), 0))?;
        let udp = Protocol::Udp.number();
        Ok(dialled.map(|Plain(it)| FrontendKey::new(it.address, it.port, udp)))
    }

    /// Of these sockets, with what they have dialled and whom they were sent to, those who are with a stranger.
    fn stranded<T>(&self, sent: Vec<(T, FrontendKey<F>, SocketAddr)>) -> io::Result<Vec<T>> {
        let mut stranded = Vec::new();
        if sent.is_empty() {
            return Ok(stranded);
        }
        let mut services = Vec::new();
        for (_, dialled, _) in &sent {
            services.push(self.services(dialled)?);
        }
        let serving = self.serving()?;
        for ((socket, _, peer), services) in sent.into_iter().zip(services) {
            let serves = |service| serving.contains(&(service, peer));
            if !services.into_iter().any(serves) {
                stranded.push(socket);
            }
        }
        Ok(stranded)
    }

    /// The services of the service port at a frontend: for the clients of one traffic policy and of the other.
    fn services(&self, dialled: &FrontendKey<F>) -> io::Result<Vec<ServiceId>> {
        let Some(Plain(frontend)) = found(self.frontends.get(&Plain(*dialled), 0))? else {
            return Ok(Vec::new());
        };
        let id = frontend.service_id;
        let Plain(service) = self.services.get(&id, 0).map_err(io_error)?;
        Ok(vec![id, service.sibling])
    }

    /// Who keeps the flows that it has, of which service.
    fn serving(&self) -> io::Result<BTreeSet<(ServiceId, SocketAddr)>> {
        let mut serving = BTreeSet::new();
        let path = self.maps.join(format!("BACKENDS_{}", self.suffix));
        batch::read::<u32, BackendEntry<F>>(&path, |_, entry| {
            if entry.state().serves() {
                let address: IpAddr = entry.address.into();
                let address = SocketAddr::new(address, entry.port.number());
                serving.insert((entry.service_id, address));
            }
        })?;
        Ok(serving)
    }
}

/// What a lookup found, if there is anything.
fn found<T>(result: Result<T, MapError>) -> io::Result<Option<T>> {
    match result.map_err(io_error) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
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
    #[test]
    fn a_socket_that_cannot_be_ended_does_not_save_the_others() {
        let answers = [libc::EPERM, 0, libc::ENOENT, libc::EBUSY, 0];
        let ended = end_all(answers, |answer| match answer {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        });
        assert_eq!((ended.count, ended.remaining), (2, 2));
        assert!(!ended.unsupported);
        let first = io::Error::from_raw_os_error(libc::EPERM).to_string();
        assert_eq!(ended.error, Some(first));
        let refuse = |()| Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        assert!(end_all([()], refuse).unsupported);
    }
}
