//! What is asked: who sends which packet to whom.
use std::{fmt, net::SocketAddr};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;
use lb_common::Protocol;
use serde::Deserialize;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Origin {
    /// A pod of this node: the packet enters by the pod's interface
    Pod,
    /// Another machine: the packet enters by one of the node's own interfaces
    Outside,
    /// A process of the node itself, or of a pod with its network: the socket hooks see the call
    Host,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pod => "pod",
            Self::Outside => "outside",
            Self::Host => "host",
        })
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where the packet comes from, if that does not follow from its source.
    pub origin: Option<Origin>,
    /// By which interface it enters.
    pub interface: Option<String>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Who sends it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

impl Question {
    /// A question.
    ///
    /// # Errors
    /// If no packet can go from the one address to the other.
    pub fn new(
        origin: Option<Origin>,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Self> {
        if source.is_ipv4() != destination.is_ipv4() {
            bail!(
                "{source} and {destination} are of two IP families: write two addresses of the same"
            );
        }
        Ok(Self {
            origin,
            interface: None,
            protocol,
            source,
            destination,
        })
    }

    /// The question in a line of JSON.
    ///
    /// # Errors
    /// If the line is not one.
    pub fn from_json(line: &str) -> Result<Self> {
        let given: Line = serde_json::from_str(line).map_err(|error| {
            // It is one line, and the caller knows which.
            let error = error.to_string();
            let problem = error.split(" at line ").next().unwrap_or_default();
            anyhow!("no question in JSON: {problem}")
        })?;
        let origin = given.origin.map(|word| {
            let origin = Origin::from_str(&word, true).ok();
            origin.with_context(|| format!("`in` is `{word}`: write pod, outside or host"))
        });
        let question = Self::new(
            origin.transpose()?,
            protocol(&given.proto).context("`proto`")?,
            address(&given.src).context("`src`")?,
            address(&given.dst).context("`dst`")?,
        )?;
        Ok(Self {
            interface: given.interface,
            ..question
        })
    }
}

/// A question as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(rename = "in")]
    origin: Option<String>,
    interface: Option<String>,
    proto: String,
    src: String,
    dst: String,
}

/// The protocol of a word.
///
/// # Errors
/// If it is none that Services have.
pub fn protocol(word: &str) -> Result<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let mut found = all
        .into_iter()
        .filter(|protocol| word.eq_ignore_ascii_case(&protocol.to_string()));
    found
        .next()
        .with_context(|| format!("`{word}` is no protocol of Services: write tcp, udp or sctp"))
}

/// An address with a port.
///
/// # Errors
/// If it is not one.
pub fn address(word: &str) -> Result<SocketAddr> {
    word.parse().with_context(|| {
        format!("`{word}` is no address with a port: write it as 10.96.0.10:53 or [fd00::10]:53")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_a_question() {
        let line = r#"{"in":"pod","proto":"udp","src":"[fd00::9]:4000","dst":"[fd00::1]:53"}"#;
        let question = Question::from_json(line).unwrap();
        assert_eq!(question.origin, Some(Origin::Pod));
        assert_eq!(question.protocol, Protocol::Udp);
        assert_eq!(question.source, "[fd00::9]:4000".parse().unwrap());
        assert_eq!(question.destination, "[fd00::1]:53".parse().unwrap());
        let line = r#"{"proto":"SCTP","src":"192.0.2.1:1","dst":"192.0.2.2:2","interface":"eth0"}"#;
        let question = Question::from_json(line).unwrap();
        assert_eq!(
            (question.origin, question.interface.as_deref()),
            (None, Some("eth0"))
        );
    }

    #[test]
    fn a_line_that_is_no_question_says_why() {
        let wrong = [
            ("", "EOF"),
            ("[]", "no question"),
            (r#"{"proto":"tcp","src":"10.0.0.1:1"}"#, "dst"),
            (
                r#"{"proto":"icmp","src":"10.0.0.1:1","dst":"10.0.0.2:2"}"#,
                "icmp",
            ),
            (
                r#"{"proto":"tcp","src":"10.0.0.1","dst":"10.0.0.2:2"}"#,
                "src",
            ),
            (
                r#"{"proto":"tcp","src":"10.0.0.1:1","dst":"10.0.0.2:66000"}"#,
                "66000",
            ),
            (
                r#"{"proto":"tcp","src":"10.0.0.1:1","dst":"[::1]:2"}"#,
                "families",
            ),
            (
                r#"{"in":"moon","proto":"tcp","src":"10.0.0.1:1","dst":"10.0.0.2:2"}"#,
                "moon",
            ),
            (
                r#"{"sport":1,"proto":"tcp","src":"10.0.0.1:1","dst":"10.0.0.2:2"}"#,
                "sport",
            ),
        ];
        for (line, part) in wrong {
            let error = format!("{:#}", Question::from_json(line).unwrap_err());
            assert!(
                error.contains(part),
                "no `{part}` in `{error}` about {line}"
            );
        }
    }
}
