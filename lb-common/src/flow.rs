//! What is remembered of a flow: one entry for each direction and each place where a packet is rewritten.
//!
//! A plain flow has two entries, a masqueraded one four. With client C, frontend F, backend B and masquerade M:
//!
//! | key      | side        | rewritten to | where   |
//! |----------|-------------|--------------|---------|
//! | C -> F   | destination | B            | ingress |
//! | B -> C   | source      | F            | egress  |
//! | C -> B   | source      | M            | egress  |
//! | B -> M   | destination | C            | ingress |
//!
//! Keys of packets that enter and of packets that leave are different keys: [`Tuple`]. Rewriting a key and turning it
//! round gives the key of its other half: [`FlowEntry::other_half`].
//!
//! Where another flow of the same client has the reply tuple already (another frontend, the same backend, the same
//! client port p), the request gets another source port q as well, and the reply gets p back:
//!
//! | key        | side        | rewritten to | other port |
//! |------------|-------------|--------------|------------|
//! | C:p -> F   | destination | B            | q          |
//! | B -> C:q   | source      | F            | p          |
use crate::{backend::BackendId, family::IpFamily, port::Port, service::ServiceId, tuple::Tuple};

/// Which end of the tuple is rewritten; this also says at which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowSide {
    /// On ingress: a request gets its backend, or a masqueraded reply its client.
    Destination = 1,
    /// On egress: a reply gets its frontend, or a request its masquerade.
    Source = 2,
}

impl FlowSide {
    /// The side as it stands in an entry.
    #[inline(always)]
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// Bits of [`FlowEntry::flags`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
pub struct FlowFlags(pub u8);

impl FlowFlags {
    /// The client's direction (C -> F and C -> B).
    pub const REQUEST: Self = Self(1);
    /// This direction sent a FIN.
    pub const FIN: Self = Self(1 << 1);
    /// Either end reset the connection, seen on this direction.
    pub const RST: Self = Self(1 << 2);
    /// Packets came the other way: on a request entry, the backend answered.
    pub const REPLIED: Self = Self(1 << 3);
    /// The request wants a masquerade on egress.
    pub const MASQUERADE: Self = Self(1 << 4);
    /// The backend is behind the bridge whose port the request entered by.
    pub const BRIDGED: Self = Self(1 << 5);
    /// The client is a process of the node: its packets take their way through the node's device pair
    /// ([`crate::DeviceFlags::NODE`]). Behind a bridge nothing is masqueraded, so both flags together are free for it.
    pub const NODE: Self = Self(Self::MASQUERADE.0 | Self::BRIDGED.0);
    /// `expected_ack` holds the acknowledgement that proves the client.
    pub const CHALLENGED: Self = Self(1 << 6);
    /// The flow has proven itself, but FLOWS had no room: it is tried again once a second.
    pub const CROWDED: Self = Self(1 << 7);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// These, but for those of `other`.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// Both sets of bits.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Value of FLOWS and `OPENING_FLOWS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEntry<F: IpFamily> {
    /// What the rewritten side becomes.
    pub address: F::Address,
    /// The port beside it.
    pub port: Port,
    /// A [`FlowSide`] as a byte.
    pub side: u8,
    /// What has been seen of the flow.
    pub flags: FlowFlags,
    /// The backend that was chosen.
    pub backend_id: BackendId,
    /// The backend's generation when it was chosen.
    pub generation: u32,
    /// The service it was chosen for; 0 where no Service takes part.
    pub service_id: ServiceId,
    /// With [`FlowFlags::CHALLENGED`]: the acknowledgement number, in host order, with which the client proves that it
    /// received the backend's SYN/ACK.
    pub expected_ack: u32,
    /// The last packet of this direction: low 32 bits of jiffies, written at most once a second.
    pub last_seen: u32,
    /// What the port of the other side becomes; [`Port::ZERO`]: it stays as it is.
    pub other_port: Port,
    /// Of a UDP request: the low 16 bits of `FRONTEND_EPOCH` when the flow's frontend was last looked up; 0 if it was not
    /// looked up since the flow was opened. Of a reply: not 0 if replies leave by the device that the frontend's address is
    /// routed to ([`crate::device::DeviceFlags::POLICY_ROUTED`]).
    pub epoch: u16,
    /// Zero.
    pub padding: F::Padding,
}

impl<F: IpFamily> FlowEntry<F> {
    /// Whether a Service takes part. If not, the flow is a direct one, or a connection of the node's own that had to take
    /// another port than its own.
    #[inline(always)]
    pub const fn has_service(&self) -> bool {
        self.service_id != 0
    }
    /// Whether its client opened the flow to the backend directly.
    #[inline(always)]
    pub const fn is_direct(&self) -> bool {
        !self.has_service() && !self.flags.has(FlowFlags::MASQUERADE)
    }
    /// What a packet with this key looks like once it has been rewritten, where it passes next: one that entered leaves.
    #[inline(always)]
    pub fn translated(&self, key: &Tuple<F>) -> Tuple<F> {
        let key = key.crossed();
        if self.side == FlowSide::Destination.byte() {
            key.with_destination(self.address, self.port)
                .with_source(key.source, self.other_port.or(key.source_port))
        } else {
            key.with_source(self.address, self.port)
                .with_destination(key.destination, self.other_port.or(key.destination_port))
        }
    }
    /// The key under which the other direction is remembered.
    #[inline(always)]
    pub fn other_half(&self, key: &Tuple<F>) -> Tuple<F> {
        self.translated(key).reversed()
    }
}

/// The only element of `FLOW_MARKS`. Every field but one is written by single stores of its own, with no reading before.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct FlowMarks {
    /// Another number after each move of a flow from `OPENING_FLOWS` to FLOWS: a reader of both sees that one moved
    /// between its two looks.
    pub last_move: u32,
    /// How many entries of FLOWS UDP flows have at most, for IPv4 and for IPv6: each that moves there adds its own by an
    /// atomic instruction, and the sweep counts again.
    pub udp_entries: [u32; 2],
    /// Zero.
    pub spare: u32,
    /// For each [`crate::hash::address_class`] of a destination: not zero once flows to such a destination stay in
    /// `OPENING_FLOWS` though no frontend leads to them. They are replies to a masquerade address, of which a node has
    /// few, and whatever found FLOWS full. Where it is zero, a packet for no frontend need not be looked up there.
    pub unlisted: [u8; crate::hash::ADDRESS_CLASSES],
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::family::{Ipv4Address, V4};

    fn at(last: u8) -> Ipv4Address {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_other_half_of_the_other_half_is_the_flow_itself() {
        let key = Tuple::<V4>::new(at(1), Port::new(1000), at(2), Port::new(80), 6);
        let request = FlowEntry {
            address: at(3),
            port: Port::new(8080),
            side: FlowSide::Destination.byte(),
            ..FlowEntry::zeroed()
        };
        let reply_key = request.other_half(&key);
        assert_eq!(
            (reply_key.source, reply_key.source_port),
            (at(3), Port::new(8080))
        );
        assert_eq!(
            (reply_key.destination, reply_key.destination_port),
            (at(1), Port::new(1000))
        );
        let reply = FlowEntry {
            address: key.destination,
            port: key.destination_port,
            side: FlowSide::Source.byte(),
            ..FlowEntry::zeroed()
        };
        assert_eq!(reply.other_half(&reply_key), key);
    }

    #[test]
    fn with_another_source_port_the_halves_lead_to_each_other_as_well() {
        let key = Tuple::<V4>::new(at(1), Port::new(1000), at(2), Port::new(80), 6);
        let request = FlowEntry {
            address: at(3),
            port: Port::new(8080),
            other_port: Port::new(61_000),
            side: FlowSide::Destination.byte(),
            ..FlowEntry::zeroed()
        };
        let reply_key = request.other_half(&key);
        assert_eq!(reply_key.destination, at(1));
        assert_eq!(reply_key.destination_port, Port::new(61_000));
        let reply = FlowEntry {
            address: key.destination,
            port: key.destination_port,
            other_port: key.source_port,
            side: FlowSide::Source.byte(),
            ..FlowEntry::zeroed()
        };
        assert_eq!(reply.other_half(&reply_key), key);
    }
}
