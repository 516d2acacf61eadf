//! The Internet checksum, changed by differences (RFC 1624, equation 3).
//!
//! The ones-complement sum does not care in which order the two bytes of a word lie, as long as all words are read
//! alike (RFC 1071, section 2 B). So everything here works on words as they lie in memory, and nothing is swapped.

/// The ones-complement difference between what was and what will be, not yet folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumDelta(u64);

impl ChecksumDelta {
    /// No difference.
    pub const NONE: Self = Self(0);

    /// Adds the change of some words.
    #[inline(always)]
    #[must_use]
    pub fn replace(mut self, old: &[u32], new: &[u32]) -> Self {
        for word in old {
            self.0 += u64::from(!*word);
        }
        for word in new {
            self.0 += u64::from(*word);
        }
        self
    }
    /// Adds the change of one half word.
    #[inline(always)]
    #[must_use]
    pub fn replace_half(mut self, old: u16, new: u16) -> Self {
        self.0 += u64::from(!old) + u64::from(new);
        self
    }
    /// Both differences.
    #[inline(always)]
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    /// Whether nothing was added (a change to the same value is a difference all the same).
    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
    /// Folded to 32 bits, the form that `bpf_l4_csum_replace` takes as a difference.
    #[inline(always)]
    pub fn folded(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let twice = (once & 0xffff_ffff) + (once >> 32);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the high half is zero: two folds"
        )]
        let word = twice as u32;
        word
    }
    /// A checksum field after the change.
    #[inline(always)]
    pub fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let mut sum = u64::from(self.folded()) + u64::from(!u16::from_ne_bytes(checksum));
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the high part is zero: three folds"
        )]
        let folded = sum as u16;
        (!folded).to_ne_bytes()
    }
}

/// Changes a transport checksum in place, where no helper does it: XDP and plain memory.
#[inline(always)]
pub fn adjust_in_place(checksum: &mut [u8; 2], zero_is_none: bool, delta: ChecksumDelta) {
    if zero_is_none && *checksum == [0, 0] {
        return;
    }
    let new = delta.apply(*checksum);
    *checksum = if zero_is_none && new == [0, 0] {
        [0xff, 0xff]
    } else {
        new
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum from scratch, as RFC 1071 has it.
    fn checksum(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn a_changed_word_gives_the_sum_from_scratch() {
        for (old, new) in [
            (0x1234u16, 0xabcdu16),
            (0, 0xffff),
            (0xffff, 0),
            (1, 0x8000),
        ] {
            let before = checksum(&[0x4500, old, 0x0042]);
            let delta = ChecksumDelta::NONE.replace_half(old, new);
            let after = u16::from_ne_bytes(delta.apply(before.to_ne_bytes()));
            assert_eq!(
                after,
                checksum(&[0x4500, new, 0x0042]),
                "{old:#x} -> {new:#x}"
            );
        }
    }

    #[test]
    fn a_carry_out_of_the_first_fold_is_folded_again() {
        // 2 * 0xffff_ffff + 1: its halves add up to 2^32.
        let delta = ChecksumDelta::NONE.replace(&[0, 0], &[1]);
        assert_eq!(delta.folded(), 1);
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        let mut field = [0, 0];
        adjust_in_place(&mut field, true, ChecksumDelta::NONE.replace_half(1, 2));
        assert_eq!(field, [0, 0]);
    }

    #[test]
    fn a_computed_zero_of_udp_becomes_all_ones() {
        let sum = checksum(&[0x1111, 0x0000]);
        let mut field = sum.to_ne_bytes();
        adjust_in_place(&mut field, true, ChecksumDelta::NONE.replace_half(0, sum));
        assert_eq!(field, [0xff, 0xff]);
    }
}
