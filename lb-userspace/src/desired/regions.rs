//! Which runs of SLOTS are free, in use, or resting.
//!
//! A service gets a new region for each new list of backends, and SERVICES is switched to it in one store. A packet that
//! read the old region a moment ago may still read its slots, so an old region rests before anything is written there.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_common::{ServiceId, SlotRegion};

/// Hands out regions of SLOTS.
#[derive(Clone, Debug)]
pub(super) struct Regions {
    /// Free runs: start to length. Neighbours are always joined.
    free: BTreeMap<u32, u32>,
    /// The same runs, by length.
    by_length: BTreeSet<(u32, u32)>,
    /// No longer wanted, but the service's entry in the map may still name it.
    leaving: Vec<(ServiceId, SlotRegion)>,
    /// No service names it since this moment on; free again then.
    resting: BTreeSet<(Duration, SlotRegion)>,
    rest: Duration,
}

impl Regions {
    pub(super) fn new(capacity: u32, rest: Duration) -> Self {
        let mut regions = Self {
            free: BTreeMap::new(),
            by_length: BTreeSet::new(),
            leaving: Vec::new(),
            resting: BTreeSet::new(),
            rest,
        };
        regions.give(SlotRegion::new(0, capacity));
        regions
    }

    /// A region of so many slots, from the shortest run that is long enough. An empty one always is to be had.
    pub(super) fn allocate(&mut self, length: u32) -> Option<SlotRegion> {
        if length == 0 {
            return Some(SlotRegion::EMPTY);
        }
        let (run, start) = self.by_length.range((length, 0)..).next().copied()?;
        self.take(start, run);
        self.put(start + length, run - length);
        Some(SlotRegion::new(start, length))
    }

    /// Takes a certain region; false if not all of it is free.
    pub(super) fn reserve(&mut self, region: SlotRegion) -> bool {
        if region.is_empty() {
            return true;
        }
        let Some((&start, &run)) = self.free.range(..=region.start()).next_back() else {
            return false;
        };
        let end = u64::from(start) + u64::from(run);
        let region_end = u64::from(region.start()) + u64::from(region.length());
        if region_end > end {
            return false;
        }
        self.take(start, run);
        self.put(start, region.start() - start);
        let rest = start + run - (region.start() + region.length());
        self.put(region.start() + region.length(), rest);
        true
    }

    /// Gives back a region that no packet has ever seen.
    pub(super) fn give(&mut self, region: SlotRegion) {
        if region.is_empty() {
            return;
        }
        let (mut start, mut length) = (region.start(), region.length());
        if let Some((&before, &run)) = self.free.range(..start).next_back()
            && before + run == start
        {
            self.take(before, run);
            start = before;
            length += run;
        }
        if let Some(&run) = self.free.get(&(start + length)) {
            self.take(start + length, run);
            length += run;
        }
        self.put(start, length);
    }

    /// A service does not want its region any more.
    pub(super) fn retire(&mut self, service: ServiceId, region: SlotRegion) {
        if !region.is_empty() {
            self.leaving.push((service, region));
        }
    }

    /// Regions that the maps do not name any more begin to rest. `current` tells what a service's entry names.
    pub(super) fn settle(&mut self, now: Duration, current: impl Fn(ServiceId) -> SlotRegion) {
        let until = now + self.rest;
        let resting = &mut self.resting;
        self.leaving.retain(|&(service, region)| {
            let named = overlap(current(service), region);
            if !named {
                resting.insert((until, region));
            }
            named
        });
    }

    /// Regions that have rested are free; true if there were any.
    pub(super) fn wake(&mut self, now: Duration) -> bool {
        let mut any = false;
        while let Some(&(until, region)) = self.resting.first()
            && until <= now
        {
            self.resting.pop_first();
            self.give(region);
            any = true;
        }
        any
    }

    /// When the next region has rested.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// How many slots the longest free run has.
    pub(super) fn longest(&self) -> usize {
        self.by_length
            .last()
            .map_or(0, |(length, _)| *length as usize)
    }

    fn take(&mut self, start: u32, length: u32) {
        self.free.remove(&start);
        self.by_length.remove(&(length, start));
    }

    fn put(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.free.insert(start, length);
            self.by_length.insert((length, start));
        }
    }
}

fn overlap(a: SlotRegion, b: SlotRegion) -> bool {
    let end = |region: SlotRegion| u64::from(region.start()) + u64::from(region.length());
    !a.is_empty() && !b.is_empty() && u64::from(a.start()) < end(b) && u64::from(b.start()) < end(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(2);

    #[test]
    fn an_old_region_is_not_handed_out_before_it_has_rested() {
        let mut regions = Regions::new(4, REST);
        let old = regions.allocate(3).unwrap();
        regions.retire(7, old);
        regions.settle(Duration::ZERO, |_| old);
        assert!(
            !regions.wake(Duration::from_mins(1)),
            "the map still names it"
        );
        regions.settle(Duration::from_mins(1), |_| SlotRegion::EMPTY);
        assert!(!regions.wake(Duration::from_secs(61)));
        assert_eq!(regions.allocate(2), None);
        assert!(regions.wake(Duration::from_secs(62)));
        assert_eq!(
            regions.allocate(4),
            Some(SlotRegion::new(0, 4)),
            "neighbours are joined"
        );
    }

    #[test]
    fn the_shortest_run_that_is_long_enough_is_taken() {
        let mut regions = Regions::new(100, REST);
        let (small, wall) = (regions.allocate(5).unwrap(), regions.allocate(5).unwrap());
        regions.give(small);
        assert_eq!(regions.allocate(6), Some(SlotRegion::new(10, 6)));
        assert_eq!(regions.allocate(5), Some(small));
        assert_ne!(wall, small);
    }

    #[test]
    fn a_region_is_reserved_once() {
        let mut regions = Regions::new(100, REST);
        assert!(regions.reserve(SlotRegion::new(10, 5)));
        assert!(!regions.reserve(SlotRegion::new(14, 1)));
        assert!(!regions.reserve(SlotRegion::new(98, 3)));
        assert!(!regions.reserve(SlotRegion::new(u32::MAX, u32::MAX)));
        assert_eq!(regions.allocate(11), Some(SlotRegion::new(15, 11)));
        assert_eq!(regions.allocate(10), Some(SlotRegion::new(0, 10)));
    }
}
