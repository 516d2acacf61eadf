//! What a program has at hand: the packet, the memory it works in, and its environment (maps, time, chance).
pub mod clock;
pub mod environment;
pub mod scratch;

use lb_common::FlowSide;

use self::scratch::FamilyMemory;
use crate::bytes::{headers::Wire, parse::Link};

/// What a path works on.
pub struct Context<'a, F: Wire, P, E> {
    /// The packet's bytes.
    pub packet: &'a mut P,
    /// What was parsed of it, and flow entries at hand.
    pub scratch: FamilyMemory<'a, F>,
    /// Maps, time, chance.
    pub env: &'a mut E,
}

/// Where in the node a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Which end of a packet is rewritten here: destinations on ingress, sources on egress.
    pub side: FlowSide,
    /// How the device frames packets.
    pub link: Link,
}
