//! Which services there are.
use crate::{
    oracle::reference::Masqueraded,
    packets::dissect::{SCTP, TCP, UDP},
};

/// A service of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// IPv6.
    pub is_v6: bool,
    /// [`TCP`], [`UDP`] or [`SCTP`].
    pub protocol: u8,
    /// By hash, not by chance.
    pub by_hash: bool,
    /// The first pod behind it.
    pub first_pod: usize,
    /// How many pods stand behind it.
    pub pods: usize,
    /// Whose requests reach backends with the node's address.
    pub masqueraded: Masqueraded,
    /// How long clients stay with a backend; 0: they do not.
    pub affinity_seconds: u32,
}

const fn kind(is_v6: bool, protocol: u8, by_hash: bool, pods: usize) -> Kind {
    Kind {
        is_v6,
        protocol,
        by_hash,
        first_pod: 0,
        pods,
        masqueraded: Masqueraded::Nobody,
        affinity_seconds: 0,
    }
}

/// Its clients stay with a backend, for a minute.
const fn keeping(kind: Kind) -> Kind {
    Kind {
        affinity_seconds: 60,
        ..kind
    }
}

/// Its pods are no clients: of the same masquerade port, only one of two clients can have its own.
const fn masquerading(masqueraded: Masqueraded, kind: Kind) -> Kind {
    Kind {
        masqueraded,
        first_pod: 2,
        ..kind
    }
}

/// All services. Those of a family and protocol share pods and target port, so that reply tuples collide.
pub const SERVICES: [Kind; 20] = [
    kind(false, TCP, false, 3),
    kind(false, TCP, true, 3),
    kind(false, TCP, false, 1),
    kind(false, UDP, false, 2),
    kind(false, UDP, true, 3),
    kind(false, TCP, false, 0),
    kind(true, TCP, true, 3),
    kind(true, TCP, false, 1),
    kind(true, UDP, false, 3),
    masquerading(Masqueraded::Everybody, kind(false, TCP, false, 2)),
    masquerading(Masqueraded::Everybody, kind(false, UDP, true, 2)),
    masquerading(Masqueraded::Everybody, kind(true, TCP, true, 2)),
    masquerading(Masqueraded::Strangers, kind(false, TCP, true, 2)),
    masquerading(Masqueraded::Strangers, kind(true, UDP, false, 2)),
    keeping(kind(false, TCP, false, 3)),
    keeping(kind(false, UDP, true, 3)),
    keeping(kind(true, TCP, false, 3)),
    kind(false, SCTP, false, 3),
    kind(true, SCTP, true, 3),
    masquerading(Masqueraded::Everybody, kind(false, SCTP, true, 2)),
];
