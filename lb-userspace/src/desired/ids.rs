//! Which ids are free.
use std::collections::BTreeSet;

/// The numbers 1 up to a limit; zero is never handed out. The lowest free one goes first, so that arrays stay dense.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    /// Free ids below `next`.
    returned: BTreeSet<u32>,
    /// Every id from here on is free.
    next: u32,
    /// Exclusive.
    end: u32,
}

impl Ids {
    /// Ids of an array with so many entries.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            returned: BTreeSet::new(),
            next: 1,
            end: capacity.max(1),
        }
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.returned.len() + (self.end - self.next) as usize
    }

    /// The lowest free id.
    pub(super) fn allocate(&mut self) -> Option<u32> {
        if let Some(id) = self.returned.pop_first() {
            return Some(id);
        }
        if self.next >= self.end {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Takes a certain id; false if it is not free.
    pub(super) fn reserve(&mut self, id: u32) -> bool {
        if id >= self.end || id == 0 {
            return false;
        }
        if id >= self.next {
            self.returned.extend(self.next..id);
            self.next = id + 1;
            return true;
        }
        self.returned.remove(&id)
    }

    /// Gives an id back.
    pub(super) fn release(&mut self, id: u32) {
        debug_assert!(
            id > 0 && id < self.next,
            "only what was handed out comes back"
        );
        self.returned.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_id_goes_first_and_zero_never() {
        let mut ids = Ids::new(4);
        assert_eq!([ids.allocate(), ids.allocate()], [Some(1), Some(2)]);
        ids.release(1);
        assert_eq!(
            [ids.allocate(), ids.allocate(), ids.allocate()],
            [Some(1), Some(3), None]
        );
    }

    #[test]
    fn a_reserved_id_is_not_handed_out() {
        let mut ids = Ids::new(5);
        assert!(ids.reserve(2) && !ids.reserve(2) && !ids.reserve(0) && !ids.reserve(5));
        assert_eq!(ids.free(), 3);
        assert_eq!(
            [ids.allocate(), ids.allocate(), ids.allocate()],
            [Some(1), Some(3), Some(4)]
        );
    }
}
