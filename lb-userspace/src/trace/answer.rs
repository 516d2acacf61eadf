//! What is answered. The keys of the JSON form are documented in docs/trace.md and stay as they are.
use std::fmt::{self, Write as _};

use lb_common::{DropReason, PassReason};
use serde::Serialize;

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It goes to a backend.
    Dnat,
    /// It goes where it was meant to go.
    Pass,
    /// Nobody gets it, and nobody says so.
    Drop,
    /// Nobody gets it, and the sender is told.
    Reject,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dnat => "dnat",
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Reject => "reject",
        })
    }
}

/// What kind of address was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The Service's cluster address.
    Internal,
    /// A node port, an address of a load balancer, an external IP.
    External,
}

/// The answer to a question. What there is not is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What becomes of the packet.
    pub verdict: Outcome,
    /// Why, in a word that scripts can compare.
    pub reason: String,
    /// `namespace/name:port`; `namespace/name` if the port has no name.
    pub service: Option<String>,
    /// The frontend that was dialled, `address:port`.
    pub frontend: Option<String>,
    /// What kind of frontend it is.
    pub scope: Option<Scope>,
    /// The backends that new flows of this kind may get, sorted as text.
    pub candidates: Vec<String>,
    /// The one that this packet gets.
    pub backend: Option<String>,
    /// Whether it leaves with the node's address as its source.
    pub masquerade: bool,
    /// Its source when it leaves the node.
    pub source_after: Option<String>,
    /// Its destination when it leaves the node.
    pub destination_after: Option<String>,
    /// How that came about, sentence by sentence.
    pub steps: Vec<String>,
}

impl Answer {
    /// The answer for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (number, step) in (1..).zip(&self.steps) {
            line(&mut text, format_args!("{number}. {step}"));
        }
        line(
            &mut text,
            format_args!("\n{}: {}", self.verdict, self.reason),
        );
        let scope = self.scope.map(|scope| match scope {
            Scope::Internal => "internal",
            Scope::External => "external",
        });
        let candidates = self.candidates.join(" ");
        let rows = [
            ("service", self.service.as_deref()),
            ("frontend", self.frontend.as_deref()),
            ("scope", scope),
            ("candidates", Some(candidates.as_str())),
            ("backend", self.backend.as_deref()),
            ("masquerade", self.masquerade.then_some("yes")),
            ("source", self.source_after.as_deref()),
            ("destination", self.destination_after.as_deref()),
        ];
        for (name, value) in rows {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                line(&mut text, format_args!("  {name:<12} {value}"));
            }
        }
        text
    }
}

fn line(text: &mut String, words: fmt::Arguments<'_>) {
    writeln!(text, "{words}").unwrap_or_default();
}

/// The word for a packet that is not ours.
pub(super) const fn pass_reason(reason: PassReason) -> &'static str {
    match reason {
        PassReason::NotIp => "not_ip",
        PassReason::OtherProtocol => "other_protocol",
        PassReason::Malformed => "malformed",
        PassReason::LaterFragment => "later_fragment",
        PassReason::NotOurs => "not_ours",
        PassReason::Direct => "direct",
    }
}

/// The word for a packet that is dropped: its counter's name without `drop_`.
pub(super) fn drop_reason(reason: DropReason) -> &'static str {
    let name = reason.counter().name();
    name.strip_prefix("drop_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_there_whatever_there_is_to_say() {
        let answer = Answer {
            verdict: Outcome::Pass,
            reason: pass_reason(PassReason::NotOurs).to_owned(),
            service: None,
            frontend: None,
            scope: None,
            candidates: Vec::new(),
            backend: None,
            masquerade: false,
            source_after: None,
            destination_after: None,
            steps: Vec::new(),
        };
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(
            json,
            r#"{"verdict":"pass","reason":"not_ours","service":null,"frontend":null,"scope":null,"candidates":[],"#
                .to_owned()
                + r#""backend":null,"masquerade":false,"source_after":null,"destination_after":null,"steps":[]}"#
        );
    }

    #[test]
    fn reasons_of_drops_are_the_names_of_their_counters() {
        assert_eq!(drop_reason(DropReason::NoBackend), "no_backend");
        assert_eq!(drop_reason(DropReason::FlowConflict), "flow_conflict");
    }
}
