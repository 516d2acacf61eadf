//! A pod: a namespace with `eth0`, connected to its node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use super::{Node, pod_network};
use crate::machine::netns::Namespace;
use crate::packets::tun::{Wire, WireKind};

/// A pod; dropping it takes its interface from the node, as a CNI does.
#[derive(Debug)]
pub struct Pod {
    /// Its name, which its servers answer with.
    pub name: String,
    /// 10.244.N.X
    pub v4: Ipv4Addr,
    /// `fd00:10:244:N::X`
    pub v6: Ipv6Addr,
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The number of its node.
    pub node: u8,
    /// The node's side of its veth.
    pub interface: String,
    node_namespace: Namespace,
    /// What joins it to its node, if that is no veth.
    wire: Option<Wire>,
}

impl Pod {
    pub(super) fn new(node: &Node, name: &str, octet: u8) -> Result<Self> {
        let pod = Self::unconnected(node, name, octet, "veth")?;
        pod_network::connect(node, &pod)?;
        Ok(pod)
    }

    pub(super) fn on_wire(node: &Node, name: &str, octet: u8, kind: WireKind) -> Result<Self> {
        let device = if kind.is_plain_ip() { "tun" } else { "tap" };
        let mut pod = Self::unconnected(node, name, octet, device)?;
        let wire = Wire::lay(&node.namespace, &pod.interface, &pod.namespace, kind)?;
        pod.wire = Some(wire);
        pod_network::connect_wire(node, &pod, kind)?;
        Ok(pod)
    }

    fn unconnected(node: &Node, name: &str, octet: u8, device: &str) -> Result<Self> {
        let number = node.number;
        let pod = Self {
            name: name.to_owned(),
            v4: Ipv4Addr::new(10, 244, number, octet),
            // The last group in decimal digits, so that ::12 belongs to .12.
            v6: format!("fd00:10:244:{number}::{octet}").parse()?,
            namespace: Namespace::new(name)?,
            node: number,
            interface: format!("{device}{octet}"),
            node_namespace: node.namespace.clone(),
            wire: None,
        };
        // Ten thousand connections in a minute must not run out of ports.
        pod.namespace.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        Ok(pod)
    }

    /// Its address in the family of `like`.
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.v4.into(),
            IpAddr::V6(_) => self.v6.into(),
        }
    }

    /// Its IPv4 address with a port.
    pub fn socket_v4(&self, port: u16) -> SocketAddr {
        (self.v4, port).into()
    }

    /// Its IPv6 address with a port.
    pub fn socket_v6(&self, port: u16) -> SocketAddr {
        (self.v6, port).into()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The interface also goes with the namespace, but only some time later.
        drop(
            self.node_namespace
                .ip(&format!("link del {}", self.interface)),
        );
    }
}
