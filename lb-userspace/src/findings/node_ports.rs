//! Node ports at which a socket of the node listens as well: clients get the Service there, and the socket gets nobody.
//!
//! kube-proxy used to hold such ports open, which kept others from them. Here the sockets are only looked at: when node
//! ports change, and now and then, for a program may come later.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::Protocol;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags, nlas::Nla},
};
use tokio::sync::watch;

use super::{About, Finding, Findings, Reason};
use crate::{
    model::{Family, ServiceName, Warning},
    netlink::Netlink,
    supervise::Tasks,
};

/// After a change of node ports so much time passes: a list of Services is many changes.
const SETTLE: Duration = Duration::from_secs(1);

/// After so long the sockets are looked at again, if there are node ports. To list those that listen takes the kernel less
/// than a millisecond.
const AGAIN: Duration = Duration::from_secs(30);

/// How many sockets a warning names.
const NAMED: usize = 3;

/// A port of every node, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodePort {
    /// The family of the addresses.
    pub family: Family,
    /// The protocol.
    pub protocol: Protocol,
    /// The port, 1 to 65535.
    pub number: u16,
}

/// The node ports that are served, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePorts {
    /// The node's addresses that serve node ports.
    pub addresses: BTreeSet<IpAddr>,
    /// Each Service's uid and ports; never an empty set.
    services: BTreeMap<ServiceName, (String, BTreeSet<NodePort>)>,
}

impl NodePorts {
    /// A Service has these ports; true if they are others than before.
    pub fn set(&mut self, name: &ServiceName, uid: String, ports: BTreeSet<NodePort>) -> bool {
        if ports.is_empty() {
            return self.services.remove(name).is_some();
        }
        let about = (uid, ports);
        let changed = self.services.get(name) != Some(&about);
        if changed {
            self.services.insert(name.clone(), about);
        }
        changed
    }
}

/// A socket that takes what is sent to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    protocol: Protocol,
    address: SocketAddr,
    /// It is open to IPv6 alone, though its address stands for both families.
    is_v6_only: bool,
}

impl Listener {
    /// Whether what is sent to this address would be its own.
    fn would_get(&self, address: IpAddr) -> bool {
        let own = self.address.ip();
        if own.is_unspecified() {
            own.is_ipv6() == address.is_ipv6() || own.is_ipv6() && !self.is_v6_only
        } else {
            own == address
        }
    }
}

/// Looks at the sockets for as long as there is an agent. What comes back is what was found.
pub fn start(node_ports: watch::Receiver<NodePorts>, tasks: &Tasks) -> watch::Receiver<Findings> {
    let (findings, receiver) = watch::channel(Findings::new());
    tasks.spawn("look for listening sockets", run(node_ports, findings));
    receiver
}

async fn run(mut node_ports: watch::Receiver<NodePorts>, findings: watch::Sender<Findings>) {
    let mut complained = false;
    loop {
        let has_some = !node_ports.borrow_and_update().services.is_empty();
        let changed = if has_some || !findings.borrow().is_empty() {
            let changed = tokio::time::timeout(AGAIN, node_ports.changed()).await;
            changed.unwrap_or(Ok(()))
        } else {
            node_ports.changed().await
        };
        if changed.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
        let wanted = node_ports.borrow_and_update().clone();
        let listening = if wanted.services.is_empty() {
            Ok(BTreeSet::new())
        } else {
            let listed = tokio::task::spawn_blocking(listening).await;
            listed.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        match listening {
            Ok(listening) => tell(&findings, clashes(&wanted, &listening)),
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(
                    "cannot tell whether sockets of this node listen at node ports: {error}"
                );
            }
            Err(_) => {}
        }
    }
}

fn tell(findings: &watch::Sender<Findings>, found: Findings) {
    findings.send_if_modified(|known| {
        for (name, about) in &found {
            if known.get(name) != Some(about) {
                for finding in &about.findings {
                    tracing::warn!("{}", finding.warning);
                }
            }
        }
        for name in known.keys().filter(|name| !found.contains_key(name)) {
            tracing::info!("Service {name}: no other socket listens at its node ports any more");
        }
        let changed = *known != found;
        *known = found;
        changed
    });
}

fn clashes(wanted: &NodePorts, listening: &BTreeSet<Listener>) -> Findings {
    let mut by_port: BTreeMap<(Protocol, u16), Vec<&Listener>> = BTreeMap::new();
    for listener in listening {
        let port = (listener.protocol, listener.address.port());
        by_port.entry(port).or_default().push(listener);
    }
    let mut findings = Findings::new();
    for (name, (uid, ports)) in &wanted.services {
        let mut met = BTreeSet::new();
        for port in ports {
            let of_family = |it: &&&IpAddr| Family::of(***it) == port.family;
            let listeners = by_port.get(&(port.protocol, port.number));
            for listener in listeners.into_iter().flatten() {
                let mut addresses = wanted.addresses.iter();
                let mut served = addresses.by_ref().filter(|it| of_family(&it));
                if served.any(|address| listener.would_get(*address)) {
                    met.insert(format!("{}/{}", listener.address, listener.protocol));
                }
            }
        }
        if met.is_empty() {
            continue;
        }
        let more = met.len().saturating_sub(NAMED);
        let mut named: Vec<String> = met.into_iter().take(NAMED).collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        let warning = Warning::new(
            format!("Service {name}"),
            format!(
                "has node ports at which sockets of this node listen: {}; clients get the Service there, and those sockets nobody",
                named.join(", ")
            ),
            "see whose they are (ss -lntup), or choose another nodePort",
        );
        let finding = Finding {
            reason: Reason::NodePortInUse,
            key: String::new(),
            warning,
        };
        let about = About {
            uid: uid.clone(),
            findings: BTreeSet::from([finding]),
        };
        findings.insert(name.clone(), about);
    }
    findings
}

/// Every socket of this network namespace that takes what strangers send: TCP that listens, UDP that is not connected.
fn listening() -> io::Result<BTreeSet<Listener>> {
    let mut all = BTreeSet::new();
    for (protocol, states) in [
        (Protocol::Tcp, StateFlags::LISTEN),
        (Protocol::Udp, StateFlags::CLOSE),
    ] {
        for (family, any) in [
            (libc::AF_INET, SocketId::new_v4()),
            (libc::AF_INET6, SocketId::new_v6()),
        ] {
            let question = SockDiagMessage::InetRequest(InetRequest {
                family: u8::try_from(family).unwrap_or_default(),
                protocol: protocol.number(),
                extensions: ExtensionFlags::empty(),
                states: states.clone(),
                socket_id: any,
            });
            for message in Netlink::sock_diag()?.dump(question)?.messages {
                let SockDiagMessage::InetResponse(response) = message else {
                    continue;
                };
                let socket = &response.header.socket_id;
                let is_v6_only = |it: &Nla| matches!(it, Nla::SkV6Only(true));
                all.insert(Listener {
                    protocol,
                    address: SocketAddr::new(
                        socket.source_address.to_canonical(),
                        socket.source_port,
                    ),
                    is_v6_only: response.nlas.iter().any(is_v6_only),
                });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_clashes_where_it_would_get_what_the_node_port_gets() {
        let listener = |address: &str, protocol, is_v6_only| Listener {
            protocol,
            address: address.parse().unwrap(),
            is_v6_only,
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let v4_only = [Family::V4];
        let both = [Family::V4, Family::V6];
        for (socket, families, expected) in [
            (listener("0.0.0.0:30080", tcp, false), &v4_only[..], true),
            (listener("192.0.2.1:30080", tcp, false), &v4_only, true),
            (listener("192.0.2.9:30080", tcp, false), &v4_only, false),
            (listener("127.0.0.1:30080", tcp, false), &both, false),
            (listener("0.0.0.0:30081", tcp, false), &v4_only, false),
            (listener("0.0.0.0:30080", udp, false), &v4_only, false),
            (listener("[::]:30080", tcp, false), &v4_only, true),
            (listener("[::]:30080", tcp, true), &v4_only, false),
            (listener("[::]:30080", tcp, true), &both, true),
            (listener("[2001:db8::1]:30080", tcp, true), &both, true),
            (listener("[2001:db8::1]:30080", tcp, true), &v4_only, false),
        ] {
            let mut wanted = NodePorts {
                addresses: ["192.0.2.1", "2001:db8::1"]
                    .map(|it| it.parse().unwrap())
                    .into(),
                ..NodePorts::default()
            };
            let ports = families.iter().map(|family| NodePort {
                family: *family,
                protocol: tcp,
                number: 30080,
            });
            let name = ServiceName::new("default", "web");
            assert!(wanted.set(&name, "uid".to_owned(), ports.collect()));
            let found = clashes(&wanted, &BTreeSet::from([socket]));
            assert_eq!(
                found.contains_key(&name),
                expected,
                "{socket:?} {families:?}"
            );
        }
    }

    #[test]
    fn sockets_that_listen_are_listed_and_others_are_not() {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let udp = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let connected = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        connected.connect(tcp.local_addr().unwrap()).unwrap();
        let listed = listening().unwrap();
        let is_listed = |protocol, address: SocketAddr| {
            let mut listed = listed.iter();
            listed.any(|it| it.protocol == protocol && it.address == address)
        };
        assert!(is_listed(Protocol::Tcp, tcp.local_addr().unwrap()));
        assert!(is_listed(Protocol::Udp, udp.local_addr().unwrap()));
        assert!(!is_listed(Protocol::Udp, connected.local_addr().unwrap()));
    }
}
