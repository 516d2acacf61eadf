//! The device pair through which processes of the node are served, where translation at their sockets is not enough: UDP
//! and SCTP. The routes to Services' addresses lead to its outer end, and the kernel programs at its inner end treat what
//! comes through as they treat packets of a pod.
pub(crate) mod routes;

use std::{
    collections::{BTreeSet, btree_map::Values},
    fs, io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clap::ValueEnum;
use lb_common::NODE_DEVICE_ADDRESS;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use routes::Routes;

use crate::datapath::devices::{
    clsact::Route,
    device::{Device, Filter},
};

/// The end that routes lead to.
pub(crate) const OUTER: &str = "waggle0";
/// The end that the kernel programs are attached to.
pub(crate) const INNER: &str = "waggle1";

/// Whose address a client has for a backend on its own node: link-local, and on no device.
pub(crate) const CLIENT_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 119, 103)),
    IpAddr::V6(std::net::Ipv6Addr::new(
        0xfd77, 0x6167, 0x676c, 0x65, 0, 0, 0, 1,
    )),
];

/// How processes of the node are served where a translation at the socket does not last: over UDP and SCTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum ServeNodeBy {
    /// To ClusterIPs packet by packet, through the devices waggle0 and waggle1, if they can be made; otherwise as with `socket`
    #[default]
    Auto,
    /// At the socket: a connected UDP socket ends when its backend leaves, and SCTP is not served
    Socket,
}

/// The pair, and the addresses that are routed to it.
#[derive(Debug)]
pub struct NodeDevice(Mutex<State>);

#[derive(Debug)]
struct State {
    netlink: Route,
    routes: Routes,
}

impl NodeDevice {
    /// The pair, which is made in this network namespace if it is wanted and not there. `None` if it cannot be made, or is
    /// neither wanted nor there: one that was wanted earlier is left until its routes have been removed.
    pub fn open(serve_by: ServeNodeBy) -> Option<Arc<Self>> {
        if serve_by == ServeNodeBy::Socket && index(OUTER).is_none() {
            return None;
        }
        let made = Self::create().inspect_err(|error| {
            tracing::warn!(
                "no device for processes of the node: {error}; UDP is translated at their sockets, and SCTP not at all"
            );
        });
        made.ok().map(Arc::new)
    }

    fn create() -> io::Result<Self> {
        let mut state = State {
            netlink: Route::route()?,
            routes: Routes::new(),
        };
        state.restore()?;
        Ok(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores the pair and its routes if they were removed.
    ///
    /// # Errors
    /// If the kernel refuses: it has no veth devices, or its settings cannot be written.
    pub(crate) fn restore(&self) -> io::Result<()> {
        self.state().restore()
    }

    /// Sets how many bytes a packet to an address that is routed here may have; processes cut their datagrams to that.
    ///
    /// # Errors
    /// If the pair is gone, or the kernel refuses.
    pub(crate) fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let State { netlink, routes } = &mut *self.state();
        routes.mtu = Some(mtu);
        routes.restore(netlink)
    }

    /// Leads what processes of the node send to these addresses, and no others, here.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_routes(&self, addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
        let State { netlink, routes } = &mut *self.state();
        routes.set(netlink, addresses)
    }

    /// Leads what processes of the node send to an address here.
    ///
    /// # Errors
    /// If the kernel refuses. The route is made with the next check of devices then.
    pub fn route(&self, address: IpAddr) -> io::Result<()> {
        let State { netlink, routes } = &mut *self.state();
        routes.add(netlink, address)
    }

    /// Leads it elsewhere again.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn unroute(&self, address: IpAddr) -> io::Result<()> {
        let State { netlink, routes } = &mut *self.state();
        routes.remove(netlink, address)
    }
}

/// A veth device drops what is larger than the MTU of its other end, and answers are as large as the device they came by
/// took them: only the routes to the pair have a limit.
const DEVICE_MTU: u32 = 65_535;

/// Keeps the pair as it should be.
#[derive(Debug)]
pub(crate) struct Keeper {
    device: Option<Arc<NodeDevice>>,
    /// What its routes have been given.
    mtu: u32,
    has_rules: bool,
}

/// The least that IPv6 asks for (RFC 8200, section 5): a device with less does not decide for all.
const LEAST_MTU: u32 = 1280;

impl Keeper {
    pub(crate) const fn new(device: Option<Arc<NodeDevice>>) -> Self {
        Self {
            device,
            mtu: 0,
            has_rules: false,
        }
    }

    /// Restores the pair and its routes if they were removed.
    pub(crate) fn restore(&mut self) {
        let Some(device) = &self.device else {
            return;
        };
        if let Err(error) = device.restore() {
            tracing::warn!("processes of the node are not served over UDP and SCTP: {error}");
        }
    }

    /// Follows what becomes of the pair, of the node's addresses, with which its routes go, and of the routing rules of others.
    pub(crate) fn follow(
        &mut self,
        devices: Values<'_, u32, Device>,
        has_rules: bool,
        is_readdressed: bool,
    ) {
        let ends = devices.filter(|it| it.is_up && [OUTER, INNER].contains(&it.name.as_str()));
        let is_whole = ends.count() == 2;
        if !is_whole || is_readdressed || self.has_rules != has_rules {
            self.has_rules = has_rules;
            self.restore();
        }
    }

    /// Sees to it that no device that packets go on by takes less than the routes to the pair allow.
    pub(crate) fn fit(&mut self, devices: Values<'_, u32, Device>, filter: &Filter) {
        let others = devices.filter(|it| it.name != INNER && filter.reason_against(it).is_none());
        let mtus = others.map(|it| it.mtu).filter(|it| *it >= LEAST_MTU);
        let (Some(mtu), Some(device)) = (mtus.min(), &self.device) else {
            return;
        };
        if mtu == self.mtu {
            return;
        }
        match device.set_mtu(mtu) {
            Ok(()) => self.mtu = mtu,
            Err(error) => tracing::warn!("cannot set the MTU of {OUTER}: {error}"),
        }
    }
}

impl State {
    fn restore(&mut self) -> io::Result<()> {
        if index(OUTER).is_none() {
            self.make()?;
        }
        for name in [OUTER, INNER] {
            let index = index(name).ok_or_else(|| gone(name))?;
            let mtu = LinkAttribute::Mtu(DEVICE_MTU);
            self.change(index, LinkFlags::Up | LinkFlags::Noarp, vec![mtu])?;
        }
        // An ICMP error comes from a router to which another device leads.
        drop(set("ipv4", OUTER, "rp_filter", "2"));
        // Without it the kernel does not say where it would send what comes in (`bpf_fib_lookup`).
        for family in ["ipv4", "ipv6"] {
            match set(family, INNER, "forwarding", "1") {
                Err(error) if error.kind() == io::ErrorKind::NotFound && family == "ipv6" => {}
                result => result?,
            }
        }
        self.routes.restore(&mut self.netlink)
    }

    fn make(&mut self) -> io::Result<()> {
        let inner = end(INNER);
        let mut outer = end(OUTER);
        outer.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
        ]));
        let message = RouteNetlinkMessage::NewLink(outer);
        self.netlink.request(message, NLM_F_CREATE | NLM_F_EXCL)?;
        for name in [OUTER, INNER] {
            // Neither end has an address of its own, not even one of the link.
            drop(set("ipv6", name, "addr_gen_mode", "1"));
        }
        Ok(())
    }

    fn change(
        &mut self,
        index: u32,
        flags: LinkFlags,
        attributes: Vec<LinkAttribute>,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        (message.header.flags, message.header.change_mask) = (flags, flags);
        message.attributes = attributes;
        self.netlink
            .request(RouteNetlinkMessage::SetLink(message), 0)
    }
}

/// Removes the pair; returns whether it was there.
pub(crate) fn remove(netlink: &mut Route) -> io::Result<bool> {
    routes::remove_rules(netlink)?;
    let Some(index) = index(OUTER) else {
        return Ok(false);
    };
    let mut message = LinkMessage::default();
    message.header.index = index;
    netlink.request(RouteNetlinkMessage::DelLink(message), 0)?;
    Ok(true)
}

fn end(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(NODE_DEVICE_ADDRESS.to_vec()),
    ];
    message
}

fn index(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

fn set(family: &str, device: &str, setting: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{family}/conf/{device}/{setting}");
    // Where it may not be written it may be right.
    if fs::read_to_string(&path).is_ok_and(|it| it.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot set {path} to {value}: {error}"),
        )
    })
}

fn gone(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name} is gone"))
}
