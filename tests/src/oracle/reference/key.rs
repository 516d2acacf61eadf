//! What flows are remembered under.
use std::net::SocketAddr;

use super::End;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Who sends.
    pub source: SocketAddr,
    /// Who receives.
    pub destination: SocketAddr,
    /// TCP or UDP.
    pub protocol: u8,
    /// Where it is seen: what enters may have its destination rewritten, what leaves its source.
    pub end: End,
}

impl Key {
    /// The same packet at the other kind of hook.
    pub(super) fn crossed(self) -> Self {
        let end = match self.end {
            End::Source => End::Destination,
            End::Destination => End::Source,
        };
        Self { end, ..self }
    }
    pub(super) fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            end: self.end,
        }
    }
}
