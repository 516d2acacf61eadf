//! Addresses and prefixes as the API has them: leading zeros are decimal, and blanks around a prefix are nothing.

use std::net::{IpAddr, Ipv4Addr};

/// A prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Reads `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.trim().split_once('/')?;
        let address = parse_address(address)?;
        let bits = bits.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        (bits <= all).then_some(Self { address, bits })
    }

    /// Whether it is of the family of this address.
    pub fn is_like(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
    }

    /// Whether it has all addresses of its family.
    pub fn is_all(&self) -> bool {
        self.bits == 0
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| -> Vec<bool> {
            let bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let each = bytes
                .into_iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
            each.take(usize::from(self.bits)).collect()
        };
        self.is_like(address) && bits(self.address) == bits(address)
    }
}

/// Reads an address; `010.0.0.1` is 10.0.0.1.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let numbers = text.split('.').map(|part| {
        let is_decimal = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_decimal.then(|| part.parse::<u8>().ok()).flatten()
    });
    let numbers: Vec<u8> = numbers.collect::<Option<_>>()?;
    let octets: [u8; 4] = numbers.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_their_addresses() {
        let prefix = Prefix::parse(" 10.1.16.0/20 ").unwrap();
        for (address, is_in) in [
            ("10.1.16.0", true),
            ("10.1.31.255", true),
            ("10.1.32.0", false),
            ("fd00::1", false),
        ] {
            assert_eq!(
                prefix.contains(address.parse().unwrap()),
                is_in,
                "{address}"
            );
        }
        assert_eq!(Prefix::parse("10.0.0.0/33"), None);
        assert_eq!(parse_address("010.0.0.08"), parse_address("10.0.0.8"));
    }
}
