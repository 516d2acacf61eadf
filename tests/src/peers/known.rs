//! Where Waggle and kube-proxy may differ, each by a name that docs/kube-proxy.md explains.

use std::collections::BTreeSet;

use super::Difference;
use super::client::{Failure, Met};
use super::question::Place;
use super::side::BACKEND;

/// A difference that is meant.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What docs/kube-proxy.md calls it.
    pub name: &'static str,
    is_this: fn(&Difference) -> bool,
}

/// All that is meant.
pub const KNOWN: &[Known] = &[Known {
    name: "own-endpoint-without-node",
    is_this: |it| {
        let others = |met: &Met| -> BTreeSet<String> {
            let pods = met.pods.keys().filter(|pod| *pod != BACKEND);
            pods.cloned().collect()
        };
        it.question.place == Place::Backend
            && it.kube_proxy.failures.iter().eq([&Failure::Silence])
            && it.waggle.failures.is_empty()
            && it.waggle.pods.contains_key(BACKEND)
            && others(&it.waggle) == others(&it.kube_proxy)
    },
}];

/// The first name that a difference has.
pub fn name_of(difference: &Difference) -> Option<&'static str> {
    let mut known = KNOWN.iter();
    let found = known.find(|known| (known.is_this)(difference));
    found.map(|known| known.name)
}
