//! `CRC32c` (RFC 9260, appendix A): what a change of some bytes changes, without a look at the others.
//!
//! The CRC is linear: two messages of one length differ in it by the CRC, begun with zero, of their difference. Where only
//! the first four bytes differ, that is their difference as a register, advanced by as many zeros as the message has bits;
//! and to advance by 2^n bytes is one multiplication.

/// The polynomial, with the coefficient of x^0 as the highest bit, as in all that follows.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// As many bits as a length of a datagram has.
const LENGTH_BITS: usize = 16;
/// x to the power of 8 * 2^n: what a register is multiplied with to advance by 2^n bytes.
static POWERS: [u32; LENGTH_BITS] = powers();

#[expect(
    clippy::indexing_slicing,
    reason = "in a constant: what is out of bounds does not compile"
)]
const fn powers() -> [u32; LENGTH_BITS] {
    let mut powers = [1 << 23; LENGTH_BITS];
    let mut n = 1;
    while n < LENGTH_BITS {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
}

/// The product of two polynomials, modulo the polynomial. Without a branch, for the verifier.
#[inline(always)]
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= b & 0u32.wrapping_sub(a >> bit & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
    }
    product
}

/// The register after so many bytes of zero: at most 65,535.
#[inline(always)]
pub fn advance(mut register: u32, bytes: u32) -> u32 {
    for (bit, power) in POWERS.iter().enumerate() {
        if bytes >> bit & 1 != 0 {
            register = multiply(register, *power);
        }
    }
    register
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail so")]
mod tests {
    use super::*;

    /// Bit by bit.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut register = u32::MAX;
        for byte in bytes {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                register = (register >> 1) ^ if register & 1 == 1 { POLYNOMIAL } else { 0 };
            }
        }
        !register
    }

    #[test]
    fn the_check_value_of_the_algorithm() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_change_of_the_first_bytes_changes_the_sum_by_what_their_difference_comes_to() {
        for length in [4, 5, 12, 16, 100, 1499, 1500, 65_535] {
            let old: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut new = old.clone();
            new[0] ^= 0x5a;
            new[3] ^= 0xff;
            let difference = u32::from_le_bytes([0x5a, 0, 0, 0xff]);
            let changed = advance(difference, u32::try_from(length).unwrap());
            assert_eq!(crc32c(&old) ^ changed, crc32c(&new), "{length} bytes");
        }
    }
}
