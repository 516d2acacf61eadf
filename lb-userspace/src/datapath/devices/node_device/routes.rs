//! The routes that lead to the pair: in the main table, and where routing rules lead past that, in one of our own that is
//! asked before them.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink says more than anybody asked for, and more with every kernel"
)]
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
        RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{CLIENT_ADDRESSES, OUTER, gone, index};
use crate::datapath::devices::{clsact::Route, inventory::rules};

/// `rtm_protocol` of our routes: a number that no routing daemon has (`linux/rtnetlink.h`).
const PROTOCOL: u8 = 119;

/// Our routing table, and the priority of the rules that lead to it: after the one for the node's own addresses, and before
/// all that others usually make.
pub(crate) const TABLE: u8 = 119;
const PRIORITY: u32 = 1;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The addresses that are routed to the pair.
#[derive(Debug)]
pub(super) struct Routes {
    wanted: BTreeSet<IpAddr>,
    /// Whether rules lead to our table.
    has_table: bool,
    /// How many bytes a packet may have that a route leads to the pair; `None` before that is known.
    pub(super) mtu: Option<u32>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            wanted: BTreeSet::from(CLIENT_ADDRESSES),
            has_table: false,
            mtu: None,
        }
    }

    fn tables(&self) -> impl Iterator<Item = u8> + use<> {
        let own = self.has_table.then_some(TABLE);
        std::iter::once(RouteHeader::RT_TABLE_MAIN).chain(own)
    }

    /// Makes what is missing.
    pub(super) fn restore(&mut self, netlink: &mut Route) -> io::Result<()> {
        let found = rules(netlink)?;
        self.has_table = !found.is_empty();
        let has_family = |family: &&AddressFamily| self.has_table && is_there(**family);
        for family in FAMILIES.iter().filter(has_family) {
            let mut of_family = found.iter().filter(|it| it.header.family == *family);
            if !of_family.any(is_ours) {
                let message = RouteNetlinkMessage::NewRule(rule(*family));
                netlink.request(message, NLM_F_CREATE | NLM_F_EXCL)?;
            }
        }
        for table in self.tables() {
            let present = present(netlink, table)?;
            // The routes of an earlier agent stay until the MTU is known.
            let is_right = |it: &&IpAddr| {
                let mtu = present.get(*it);
                mtu.is_some_and(|mtu| self.mtu.is_none() || *mtu == self.mtu)
            };
            let missing = self.wanted.iter().filter(|it| !is_right(it));
            // One that is refused keeps no other from having its route.
            let results: Vec<_> = missing
                .map(|it| add(netlink, *it, table, self.mtu))
                .collect();
            results.into_iter().collect::<io::Result<()>>()?;
        }
        Ok(())
    }

    /// Exactly these addresses are routed to the pair.
    pub(super) fn set(
        &mut self,
        netlink: &mut Route,
        addresses: &BTreeSet<IpAddr>,
    ) -> io::Result<()> {
        self.wanted = BTreeSet::from(CLIENT_ADDRESSES);
        self.wanted.extend(addresses);
        self.restore(netlink)?;
        for table in self.tables() {
            let present = present(netlink, table)?.into_keys();
            for address in present.filter(|it| !self.wanted.contains(it)) {
                remove(netlink, address, table)?;
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, netlink: &mut Route, address: IpAddr) -> io::Result<()> {
        self.wanted.insert(address);
        self.tables()
            .try_for_each(|table| add(netlink, address, table, self.mtu))
    }

    pub(super) fn remove(&mut self, netlink: &mut Route, address: IpAddr) -> io::Result<()> {
        self.wanted.remove(&address);
        self.tables()
            .try_for_each(|table| remove(netlink, address, table))
    }
}

/// Whether the rule is the agent's: another program may use the same table number.
fn is_ours(rule: &RuleMessage) -> bool {
    rule.header.table == TABLE && rule.attributes.contains(&RuleAttribute::Priority(PRIORITY))
}

/// Removes the rules that lead to our table.
pub(super) fn remove_rules(netlink: &mut Route) -> io::Result<()> {
    let found = rules(netlink)?;
    let ours = found.into_iter().filter(is_ours);
    ours.into_iter()
        .try_for_each(|it| netlink.request(RouteNetlinkMessage::DelRule(it), 0))
}

/// Whether the node has the family.
fn is_there(family: AddressFamily) -> bool {
    let is_disabled = || {
        let path = format!("/proc/sys/net/ipv6/conf/{OUTER}/disable_ipv6");
        fs::read_to_string(path).is_ok_and(|it| it.trim() != "0")
    };
    let has_ipv6 = || Path::new("/proc/sys/net/ipv6/conf").join(OUTER).exists();
    family != AddressFamily::Inet6 || (has_ipv6() && !is_disabled())
}

fn family(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

/// The addresses that a table leads to the pair, with the MTU of their routes.
fn present(netlink: &mut Route, table: u8) -> io::Result<BTreeMap<IpAddr, Option<u32>>> {
    let Some(index) = index(OUTER) else {
        return Ok(BTreeMap::new());
    };
    let dump = netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    let routes = dump.messages.into_iter().filter_map(|message| {
        let RouteNetlinkMessage::NewRoute(route) = message else {
            return None;
        };
        let attributes = &route.attributes;
        let is_ours = attributes.contains(&RouteAttribute::Oif(index))
            && route.header.table == table
            && route.header.protocol == RouteProtocol::from(PROTOCOL);
        let destination = attributes.iter().find_map(|it| match it {
            RouteAttribute::Destination(RouteAddress::Inet(it)) => Some(IpAddr::V4(*it)),
            RouteAttribute::Destination(RouteAddress::Inet6(it)) => Some(IpAddr::V6(*it)),
            _ => None,
        });
        let mtu = attributes.iter().find_map(|it| match it {
            RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|it| match it {
                RouteMetric::Mtu(mtu) => Some(*mtu),
                _ => None,
            }),
            _ => None,
        });
        destination.filter(|_| is_ours).map(|it| (it, mtu))
    });
    Ok(routes.collect())
}

fn add(netlink: &mut Route, address: IpAddr, table: u8, mtu: Option<u32>) -> io::Result<()> {
    if !is_there(family(address).0) {
        return Ok(());
    }
    let index = index(OUTER).ok_or_else(|| gone(OUTER))?;
    let mut message = route(address, index, table);
    message.attributes.extend(source(netlink, address));
    let mtu = mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    message.attributes.extend(mtu);
    let message = RouteNetlinkMessage::NewRoute(message);
    netlink.request(message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// The source that the node's packets to an address have without our route: without it they would have the first address of
/// any device.
fn source(netlink: &mut Route, address: IpAddr) -> Option<RouteAttribute> {
    let mut question = RouteMessage::default();
    let header = &mut question.header;
    (header.address_family, header.destination_prefix_length) = family(address);
    question.attributes = vec![RouteAttribute::Destination(address.into())];
    // Without a route to it there is none.
    let answers = netlink.ask(RouteNetlinkMessage::GetRoute(question)).ok()?;
    answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewRoute(route) = answer else {
            return None;
        };
        let mut attributes = route.attributes.into_iter();
        attributes.find(|it| matches!(it, RouteAttribute::PrefSource(_)))
    })
}

fn remove(netlink: &mut Route, address: IpAddr, table: u8) -> io::Result<()> {
    let Some(index) = index(OUTER) else {
        return Ok(());
    };
    let message = RouteNetlinkMessage::DelRoute(route(address, index, table));
    match netlink.request(message, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

fn route(address: IpAddr, index: u32, table: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (address_family, destination_prefix_length) = family(address);
    message.header = RouteHeader {
        address_family,
        destination_prefix_length,
        table,
        protocol: RouteProtocol::from(PROTOCOL),
        scope: RouteScope::Link,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(address.into()),
        RouteAttribute::Oif(index),
    ];
    message
}

fn rule(family: AddressFamily) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.table = TABLE;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Priority(PRIORITY)];
    message
}
