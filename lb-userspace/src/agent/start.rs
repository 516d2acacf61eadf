//! The start over the maps of an earlier run, if not all that there is can be read.
use crate::{
    agent::{Agent, Source},
    maps::LbMaps,
};

/// How far what the maps said at the start is accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Start {
    /// No plan has been made.
    #[default]
    NotYet,
    /// What is known is in the maps. What else is in them may stand in what cannot be read, and stays.
    InPart,
    /// All of it.
    Whole,
}

impl<M: LbMaps> Agent<M> {
    /// What an earlier run has left may be what cannot be read now: it stays until everything can.
    pub(super) fn note_partial(&mut self, source: Source, is_partial: bool) {
        let has_earlier = self.start != Start::Whole && !self.actual.has_no_frontends();
        self.sources.entry(source).or_default().is_partial = is_partial && has_earlier;
        if !is_partial && self.start == Start::InPart {
            self.start = Start::NotYet;
        }
    }
}
