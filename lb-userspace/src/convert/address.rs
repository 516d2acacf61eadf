//! Addresses as objects write them, read as kube-proxy reads them.
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{convert::Notes, model::Family};

/// How an address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// As everybody writes it.
    Usual,
    /// With numbers that begin with zeros: 010.0.0.1 is 10.0.0.1. Kubernetes has always read them in decimal; the C
    /// library reads them as octal.
    LeadingZeros,
    /// IPv4 in the form of IPv6 (RFC 4291, section 2.5.5.2).
    Mapped,
}

/// Reads an address of either family. Like Go's `ParseIP` it knows no zones.
fn parse(text: &str) -> Option<(IpAddr, Spelling)> {
    let (address, spelling) = match text.parse::<IpAddr>() {
        Ok(address) => (address, Spelling::Usual),
        Err(_) => (without_zeros(text)?, Spelling::LeadingZeros),
    };
    let (canonical, is_mapped) = (address.to_canonical(), address.to_canonical() != address);
    Some((
        canonical,
        if is_mapped {
            Spelling::Mapped
        } else {
            spelling
        },
    ))
}

/// Reads what only leading zeros keep from being an address.
fn without_zeros(text: &str) -> Option<IpAddr> {
    // The numbers of IPv4 may stand at the end of an IPv6 address.
    let start = text.rfind(':').map_or(0, |colon| colon + 1);
    let (front, v4) = text.split_at_checked(start)?;
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = v4
        .split('.')
        .map(|it| is_number(it).then(|| it.trim_start_matches('0')));
    let numbers: Option<Vec<&str>> = numbers.collect();
    let numbers: Vec<&str> = numbers?
        .into_iter()
        .map(|it| if it.is_empty() { "0" } else { it })
        .collect();
    format!("{front}{}", numbers.join(".")).parse().ok()
}

/// Reads a prefix of either family; bits beyond its length do not count.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let (address, _) = parse(address)?;
    let prefix = IpNet::new(address, length.parse().ok()?).ok()?;
    Some(prefix.trunc())
}

impl Notes {
    /// A prefix; bits beyond its length do not count.
    pub(super) fn prefix(&mut self, of: &str, text: &str) -> Option<IpNet> {
        let prefix = prefix(text);
        if prefix.is_none() {
            self.add(
                format!("{of} `{text}` is no prefix; it lets nobody in"),
                "write an address and a length, as 192.0.2.0/24 or 2001:db8::/32",
            );
        }
        prefix
    }

    /// An address that packets can be sent to, of the right family if there is a right one.
    pub(super) fn address(
        &mut self,
        of: &str,
        text: &str,
        family: Option<Family>,
    ) -> Option<IpAddr> {
        let Some((address, spelling)) = parse(text) else {
            self.add(
                format!("{of} `{text}` is no IP address; it is left out"),
                "write an IPv4 or IPv6 address",
            );
            return None;
        };
        let is = Family::of(address);
        if let Some(family) = family.filter(|family| *family != is) {
            self.add(
                format!("{of} {text} is {is} where {family} is announced; it is left out"),
                format!("put it where {is} is announced"),
            );
            return None;
        }
        if let Some(kind) = unreachable_kind(address) {
            self.add(
                format!("{of} {text} is {kind}; it is left out"),
                "write an address that packets can be sent to from every node",
            );
            return None;
        }
        let oddity = match spelling {
            Spelling::Usual => None,
            Spelling::LeadingZeros => Some("has leading zeros; it is read in decimal"),
            Spelling::Mapped => Some("is an IPv4 address written as IPv6; it is taken"),
        };
        if let Some(oddity) = oddity {
            self.add(
                format!("{of} {text} {oddity}, as {address}"),
                format!("write {address}: others may read it otherwise"),
            );
        }
        Some(address)
    }

    /// An address that an endpoint can have. The API server takes no link-local ones (a cloud's metadata service is at
    /// one), and neither do we from whoever else writes them.
    pub(super) fn endpoint_address(
        &mut self,
        of: &str,
        text: &str,
        family: Option<Family>,
    ) -> Option<IpAddr> {
        let address = self.address(of, text, family)?;
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if is_link_local {
            self.add(
                format!("{of} {text} is a link-local address; it is left out"),
                "write an address that packets can be sent to from every node",
            );
        }
        (!is_link_local).then_some(address)
    }
}

fn unreachable_kind(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if broadcast {
        Some("the broadcast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kube_proxy_reads_them() {
        use Spelling::{LeadingZeros, Mapped, Usual};
        for (text, read) in [
            ("10.0.0.1", Some(("10.0.0.1", Usual))),
            ("010.0.0.1", Some(("10.0.0.1", LeadingZeros))),
            ("10.000.0.0001", Some(("10.0.0.1", LeadingZeros))),
            ("010.0.0.256", None),
            ("fd00::1", Some(("fd00::1", Usual))),
            ("FD00:0:0::01", Some(("fd00::1", Usual))),
            ("::ffff:10.0.0.1", Some(("10.0.0.1", Mapped))),
            ("::ffff:010.0.0.1", Some(("10.0.0.1", Mapped))),
            ("64:ff9b::010.0.0.1", Some(("64:ff9b::a00:1", LeadingZeros))),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("10..0.1", None),
            ("0x0a.0.0.1", None),
            ("+10.0.0.1", None),
            (" 10.0.0.1", None),
            ("10.0.0.1/32", None),
            ("fe80::1%eth0", None),
            ("\u{fffd}:10.0.0.01", None),
            ("", None),
            (":", None),
        ] {
            let read = read.map(|(address, spelling)| (address.parse().unwrap(), spelling));
            assert_eq!(parse(text), read, "{text}");
        }
    }
}
