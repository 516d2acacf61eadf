//! Where health checks of the agent are answered.
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use super::period::as_text;

/// kube-proxy's port.
const PORT: u16 = 10256;

/// An address and a port, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthzAddress(pub Option<SocketAddr>);

impl Default for HealthzAddress {
    fn default() -> Self {
        Self(Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)))
    }
}

impl FromStr for HealthzAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let without_port = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
        let address = text.parse().ok().or_else(without_port);
        address.map(|address| Self(Some(address))).ok_or_else(|| {
            format!(
                "`{text}` is no address: write one with a port, as 0.0.0.0:{PORT} or [::1]:{PORT}, or nothing"
            )
        })
    }
}

impl fmt::Display for HealthzAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

as_text!([] HealthzAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_port_and_nothing_is_nowhere() {
        for (text, expected) in [
            ("", Some("")),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("::1", Some("[::1]:10256")),
            ("0.0.0.0", Some("0.0.0.0:10256")),
            ("localhost:80", None),
            ("10256", None),
        ] {
            let shown = text.parse::<HealthzAddress>().map(|it| it.to_string());
            assert_eq!(shown.ok().as_deref(), expected, "{text}");
        }
    }
}
