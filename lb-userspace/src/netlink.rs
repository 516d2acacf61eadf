//! A blocking netlink socket: questions, dumps, and messages of multicast groups.
use std::{
    collections::VecDeque,
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr, protocols};

/// More than the kernel puts into one datagram.
const BUFFER: usize = 64 * 1024;

/// Receive buffer of a socket that listens to multicast groups: some 10,000 messages.
const MULTICAST_BUFFER: usize = 4 * 1024 * 1024;

/// A socket of one netlink protocol, whose messages are of type `M`.
#[derive(Debug)]
pub(crate) struct Netlink<M> {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    messages: PhantomData<M>,
}

/// What a dump brought.
#[derive(Debug)]
pub(crate) struct Dump<M> {
    pub(crate) messages: Vec<M>,
    /// How many messages this program could not read.
    pub(crate) unreadable: usize,
}

/// What a multicast socket brought.
#[derive(Debug)]
pub(crate) enum Received<M> {
    /// These, in order.
    Messages(Vec<M>),
    /// Some were lost: ask for everything again.
    Lost,
}

impl<M: NetlinkSerializable + NetlinkDeserializable> Netlink<M> {
    /// A socket of `NETLINK_ROUTE`.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(protocols::NETLINK_ROUTE)
    }
    /// A socket of `NETLINK_SOCK_DIAG`.
    pub(crate) fn sock_diag() -> io::Result<Self> {
        Self::open(protocols::NETLINK_SOCK_DIAG)
    }

    /// A socket of this protocol.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
            messages: PhantomData,
        })
    }

    /// Listens to these groups (`RTNLGRP_…`) without ever blocking in [`Self::received`].
    pub(crate) fn subscribe(&mut self, groups: &[u32]) -> io::Result<()> {
        self.socket.set_rx_buf_sz(MULTICAST_BUFFER)?;
        for group in groups {
            self.socket.add_membership(*group)?;
        }
        Ok(())
    }

    /// Asks for a change and waits for the kernel's answer.
    pub(crate) fn request(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers(|_| ()).map(drop)
    }

    /// Asks a question about one thing.
    pub(crate) fn ask(&mut self, message: M) -> io::Result<Vec<M>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut messages = Vec::new();
        self.answers(|message| messages.push(message))?;
        Ok(messages)
    }

    /// Asks for everything of a kind.
    pub(crate) fn dump(&mut self, message: M) -> io::Result<Dump<M>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut messages = Vec::new();
        let unreadable = self.answers(|message| messages.push(message))?;
        Ok(Dump {
            messages,
            unreadable,
        })
    }

    /// All messages that have come in; none if there are none.
    pub(crate) fn received(&mut self) -> io::Result<Received<M>> {
        let mut messages = Vec::new();
        loop {
            match self.receive(libc::MSG_DONTWAIT, None) {
                Ok(parts) => messages.extend(parts.into_iter().filter_map(|part| match part {
                    Part::Message(message) => Some(message),
                    Part::Done | Part::Answer(_) | Part::Unreadable => None,
                })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Messages(messages));
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Received::Lost);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let payload = NetlinkPayload::InnerMessage(message);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map(drop)
    }

    /// Reads up to the end of a dump or the answer to a request; returns how many messages were unreadable.
    fn answers(&mut self, mut take: impl FnMut(M)) -> io::Result<usize> {
        let mut unreadable = 0;
        loop {
            for part in self.receive(0, Some(self.sequence))? {
                match part {
                    Part::Message(message) => take(message),
                    Part::Unreadable => unreadable += 1,
                    Part::Done | Part::Answer(None) => return Ok(unreadable),
                    Part::Answer(Some(error)) => return Err(error),
                }
            }
        }
    }

    /// One datagram, taken apart; with `sequence`, only answers to that request.
    fn receive(
        &mut self,
        flags: libc::c_int,
        sequence: Option<u32>,
    ) -> io::Result<VecDeque<Part<M>>> {
        self.buffer.clear();
        let length = self.socket.recv(&mut self.buffer, flags)?;
        let mut rest = self.buffer.get(..length).unwrap_or(&[]);
        let mut parts = VecDeque::new();
        while let Ok(header) = NetlinkBuffer::new_checked(rest) {
            let length = usize::try_from(header.length()).unwrap_or(rest.len());
            let Some(bytes) = rest.get(..length) else {
                break;
            };
            if sequence.is_none_or(|sequence| header.sequence_number() == sequence) {
                parts.push_back(Part::read(bytes));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Ok(parts)
    }
}

impl<M> AsFd for Netlink<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[derive(Debug)]
enum Part<M> {
    Message(M),
    Done,
    Answer(Option<io::Error>),
    Unreadable,
}

impl<M: NetlinkDeserializable> Part<M> {
    fn read(bytes: &[u8]) -> Self {
        let message = NetlinkMessage::<M>::deserialize(bytes);
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => Self::Message(message),
            Ok(NetlinkPayload::Done(_)) => Self::Done,
            Ok(NetlinkPayload::Error(error)) => Self::Answer(error.code.map(|_| error.to_io())),
            Ok(_) => Self::Unreadable,
            Err(error) => {
                tracing::debug!("a netlink message that cannot be read: {error}");
                Self::Unreadable
            }
        }
    }
}
