//! The hash of a tuple, the same on both sides.
use crate::{family::IpFamily, tuple::Tuple};

/// Mixes a tuple into 32 bits (multiply, rotate and xor; the finishing step is that of `MurmurHash3`).
///
/// Not for use against an adversary: whoever knows it can aim.
#[inline(always)]
pub fn tuple_hash<F: IpFamily>(tuple: &Tuple<F>) -> u32 {
    let mut hash = 0x9e37_79b9u32 ^ tuple.protocol;
    for word in tuple.source.as_ref() {
        hash = mix(hash, *word);
    }
    for word in tuple.destination.as_ref() {
        hash = mix(hash, *word);
    }
    hash = mix(
        hash,
        u32::from(tuple.source_port.word()) << 16 | u32::from(tuple.destination_port.word()),
    );
    finish(hash)
}

/// Mixes a socket's cookie and what it dialled.
#[inline(always)]
pub fn socket_hash(cookie: u64, address: &[u32], port: u16) -> u32 {
    let [low, high]: [u32; 2] = bytemuck::must_cast(cookie);
    let mut hash = mix(mix(0x9e37_79b9, low), high);
    for word in address {
        hash = mix(hash, *word);
    }
    finish(mix(hash, u32::from(port)))
}

#[inline(always)]
const fn mix(hash: u32, word: u32) -> u32 {
    (hash
        ^ word
            .wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593))
    .rotate_left(13)
    .wrapping_mul(5)
    .wrapping_add(0xe654_6b64)
}

#[inline(always)]
const fn finish(mut hash: u32) -> u32 {
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// How many classes [`address_class`] has.
pub const ADDRESS_CLASSES: usize = 64;

/// Sorts addresses into [`ADDRESS_CLASSES`] classes (multiplicative hashing, Knuth 6.4).
#[inline(always)]
pub fn address_class(address: &[u32]) -> usize {
    let mut word = 0;
    for part in address {
        word = part ^ u32::rotate_left(word, 7);
    }
    (word.wrapping_mul(0x9e37_79b1) >> 26) as usize
}

/// Picks one of `length` places by a random or hashed word: multiply and shift, no division, no modulo bias to speak of.
#[inline(always)]
pub const fn place(word: u32, length: u32) -> u32 {
    ((word as u64 * length as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        family::{Ipv4Address, V4},
        port::Port,
    };

    #[test]
    fn neighbouring_ports_spread_evenly() {
        let mut hits = [0u32; 8];
        for port in 0..8000 {
            let tuple = Tuple::<V4>::new(
                Ipv4Address::from([10, 244, 1, 9]),
                Port::new(30_000 + port),
                Ipv4Address::from([10, 103, 145, 6]),
                Port::new(80),
                6,
            );
            hits[place(tuple_hash(&tuple), 8) as usize] += 1;
        }
        assert!(hits.iter().all(|hit| (800..1200).contains(hit)), "{hits:?}");
    }

    #[test]
    fn every_part_of_a_tuple_counts() {
        let at = |last| Ipv4Address::from([10, 0, 0, last]);
        let base = Tuple::<V4>::new(at(1), Port::new(1000), at(2), Port::new(80), 6);
        let others = [
            base.with_source(at(3), Port::new(1000)),
            base.with_source(at(1), Port::new(1001)),
            base.with_destination(at(3), Port::new(80)),
            base.with_destination(at(2), Port::new(81)),
            Tuple {
                protocol: 17,
                ..base
            },
        ];
        for other in others {
            assert_ne!(tuple_hash(&base), tuple_hash(&other), "{other:?}");
        }
    }

    #[test]
    fn neighbouring_addresses_are_of_different_classes() {
        let mut hits = [0u32; ADDRESS_CLASSES];
        for last in 0..=255 {
            hits[address_class(Ipv4Address::from([10, 0, 0, last]).as_ref())] += 1;
        }
        assert!(hits.iter().all(|hit| (1..12).contains(hit)), "{hits:?}");
    }

    #[test]
    fn a_place_is_always_inside() {
        assert_eq!(
            (place(u32::MAX, 3), place(0, 3), place(u32::MAX, 1)),
            (2, 0, 0)
        );
    }
}
