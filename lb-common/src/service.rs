//! A service port: how one of its backends is chosen, and where the candidates stand.
use bytemuck::{Pod, Zeroable};

/// Names a service port's entry in SERVICES. Zero is never handed out, so a zeroed entry belongs to nobody.
pub type ServiceId = u32;

/// A run of SLOTS: the current candidates of one service.
///
/// Start and length travel as one aligned word, so that a reader sees either the old region or the new one.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct SlotRegion(u64);

impl SlotRegion {
    /// No candidates.
    pub const EMPTY: Self = Self(0);

    /// `length` slots from `start` on.
    #[inline(always)]
    pub const fn new(start: u32, length: u32) -> Self {
        Self((start as u64) << 32 | length as u64)
    }
    /// Index of the first slot.
    #[inline(always)]
    pub const fn start(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// How many slots.
    #[inline(always)]
    pub const fn length(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }
    /// Whether nobody can answer.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.length() == 0
    }
}

/// How a backend is chosen for a new flow. In the entry it stands as a byte; an unknown byte means random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// Each candidate with equal chance.
    #[default]
    Random = 0,
    /// By the hash of the request's tuple: repeatable.
    Hash = 1,
}

/// Value of SERVICES, an array indexed by [`ServiceId`].
///
/// The agent replaces a whole entry in one map update; what changes in a living entry are `slots` and
/// `affinity_seconds`, a word each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ServiceEntry {
    /// The candidates.
    pub slots: SlotRegion,
    /// An [`Algorithm`] as a byte.
    pub algorithm: u8,
    /// Zero.
    pub spare: [u8; 3],
    /// How long after its last new flow a client goes back to the backend it had; zero: it does not.
    pub affinity_seconds: u32,
    /// The id of the same service port for the clients of the other traffic policy; 0 if it has none. A frontend that goes
    /// from one to the other, because the policy changes, keeps its UDP flows.
    pub sibling: ServiceId,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<ServiceEntry>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_one_word() {
        let region = SlotRegion::new(u32::MAX, 7);
        assert_eq!((region.start(), region.length()), (u32::MAX, 7));
        assert!(!region.is_empty() && SlotRegion::new(9, 0).is_empty());
    }
}
