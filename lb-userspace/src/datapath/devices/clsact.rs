//! The older way onto a device: BPF filters of the clsact qdisc, through netlink. Taken below kernel 6.6, and on egress
//! wherever others have clsact filters: TCX always runs before clsact, and ours must see replies last.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink says more than anybody asked for, and more with every kernel"
)]
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
        TcOption,
    },
};
use serde::{Deserialize, Serialize};

use crate::netlink::Netlink;

/// A netlink socket for routing messages.
pub(crate) type Route = Netlink<RouteNetlinkMessage>;

/// Which way packets go, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the node.
    Ingress,
    /// Out of the node.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As it stands in names of pins and filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
    /// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of the clsact qdisc.
    const fn parent(self) -> TcHandle {
        TcHandle {
            major: u16::MAX,
            minor: match self {
                Self::Ingress => 0xfff2,
                Self::Egress => 0xfff3,
            },
        }
    }
    /// The preferences we try, best first: before everybody on ingress, as TCX would be; after everybody on egress.
    /// More than one, because a preference with another protocol or kind is taken as a whole.
    fn preferences(self) -> Vec<u16> {
        match self {
            Self::Ingress => (1..=16).collect(),
            Self::Egress => (u16::MAX - 15..=u16::MAX).rev().collect(),
        }
    }
    fn filter_name(self) -> String {
        format!("waggle_{}", self.name())
    }
}

/// Our filters' handle within a preference: nobody else's is overwritten.
const HANDLE: u32 = 0x7761_6767;

/// `ETH_P_ALL` in network order, as it stands in `tcm_info`.
const ALL_PROTOCOLS: u32 = 0x0003u16.to_be() as u32;

/// A filter of a clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Lower runs first.
    pub(crate) preference: u16,
    /// `bpf`, `flower`, …
    pub(crate) kind: String,
    /// Of BPF filters.
    pub(crate) name: String,
    /// Of BPF filters.
    pub(crate) program_id: Option<u32>,
    handle: u32,
    ours: bool,
}

impl Filter {
    /// Whether this program made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.ours
    }

    fn read(direction: Direction, message: &TcMessage) -> Option<Self> {
        let preference = u16::try_from(message.header.info >> 16).unwrap_or_default();
        let handle = u32::from(message.header.handle);
        let mut filter = Self {
            preference,
            kind: String::new(),
            name: String::new(),
            program_id: None,
            handle,
            ours: false,
        };
        for attribute in &message.attributes {
            match attribute {
                TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
                TcAttribute::Options(options) => {
                    for option in options {
                        match option {
                            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                                filter.name.clone_from(name);
                            }
                            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => {
                                filter.program_id = Some(*id);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        filter.ours = handle == HANDLE && filter.name == direction.filter_name();
        // A classifier without elements is listed with handle zero.
        (handle != 0).then_some(filter)
    }
}

/// All filters on one side of a device, in the order in which they run; none where there is no clsact qdisc.
pub(crate) fn filters(
    netlink: &mut Route,
    index: u32,
    direction: Direction,
) -> io::Result<Vec<Filter>> {
    let mut question = TcMessage::default();
    question.header = header(index, direction);
    let dump = netlink.dump(RouteNetlinkMessage::GetTrafficFilter(question))?;
    let mut filters: Vec<_> = dump
        .messages
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => Filter::read(direction, message),
            _ => None,
        })
        .collect();
    // Somebody's, whatever it is: better counted than overlooked.
    filters.extend((0..dump.unreadable).map(|_| Filter {
        preference: 0,
        kind: "unknown".to_owned(),
        name: String::new(),
        program_id: None,
        handle: 0,
        ours: false,
    }));
    filters.sort_by_key(|filter| filter.preference);
    Ok(filters)
}

/// Adds the clsact qdisc; false if the device had one.
pub(crate) fn add_qdisc(netlink: &mut Route, index: u32) -> io::Result<bool> {
    match netlink.request(
        RouteNetlinkMessage::NewQueueDiscipline(qdisc(index)),
        NLM_F_CREATE | NLM_F_EXCL,
    ) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the clsact qdisc with all its filters; one that is not there is no error.
pub(crate) fn remove_qdisc(netlink: &mut Route, index: u32) -> io::Result<()> {
    let removed = netlink.request(RouteNetlinkMessage::DelQueueDiscipline(qdisc(index)), 0);
    ignore_absence(removed)
}

/// Adds our filter, or gives the one that is there another program; returns its preference. `own` is the preference of
/// one that is there: it is tried first, so that the program is exchanged and not doubled.
pub(crate) fn put_filter(
    netlink: &mut Route,
    index: u32,
    direction: Direction,
    program: BorrowedFd<'_>,
    own: Option<u16>,
) -> io::Result<u16> {
    let mut last = None;
    for preference in own.into_iter().chain(direction.preferences()) {
        let mut message = TcMessage::default();
        message.header = TcHeader {
            handle: TcHandle::from(HANDLE),
            info: u32::from(preference) << 16 | ALL_PROTOCOLS,
            ..header(index, direction)
        };
        let fd = u32::from_ne_bytes(program.as_raw_fd().to_ne_bytes());
        message.attributes = vec![
            TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
            TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgFd(fd)),
                TcOption::Bpf(TcFilterBpfOption::ProgName(direction.filter_name())),
                TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
            ]),
        ];
        match netlink.request(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE) {
            Ok(()) => return Ok(preference),
            // Another protocol or another kind of filter sits at this preference.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL)))
}

/// Removes one of our filters; one that is not there is no error.
pub(crate) fn remove_filter(
    netlink: &mut Route,
    index: u32,
    direction: Direction,
    filter: &Filter,
) -> io::Result<()> {
    let mut message = TcMessage::default();
    message.header = TcHeader {
        handle: TcHandle::from(filter.handle),
        info: u32::from(filter.preference) << 16 | ALL_PROTOCOLS,
        ..header(index, direction)
    };
    message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    ignore_absence(netlink.request(RouteNetlinkMessage::DelTrafficFilter(message), 0))
}

fn header(index: u32, direction: Direction) -> TcHeader {
    TcHeader {
        index: index.cast_signed(),
        parent: direction.parent(),
        ..TcHeader::default()
    }
}

fn qdisc(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = TcHeader {
        index: index.cast_signed(),
        handle: TcHandle {
            major: u16::MAX,
            minor: 0,
        },
        parent: TcHandle::CLSACT,
        ..TcHeader::default()
    };
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    message
}

fn ignore_absence(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
