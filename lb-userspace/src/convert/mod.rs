//! From Kubernetes' types to the model. Total: nothing fails, what cannot be taken is left out and said.
//!
//! One bad port never takes its Service down, one bad address never its slice.
mod address;
mod endpoint_slice;
mod endpoints;
mod node;
mod pods;
mod service;
mod service_cidr;

use lb_common::Protocol;

pub use endpoint_slice::{SERVICE_NAME_LABEL, endpoint_slice, is_excluded, names_service};
pub use endpoints::endpoints;
pub use node::node;
pub use pods::{pod_uid, select};
pub use service::service;
pub use service_cidr::service_cidr;

use crate::{
    model::{ObjectName, Warning},
    objects::Metadata,
};

/// How many warnings one object may give before the rest is only counted: 70,000 endpoints may all be wrong alike.
const SHOWN: usize = 5;

/// Namespace and name; an object without a namespace is in `default`.
pub fn object_name(metadata: &Metadata) -> ObjectName {
    let namespace = metadata.namespace.as_deref().filter(|it| !it.is_empty());
    ObjectName::new(
        namespace.unwrap_or("default"),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// Collects the warnings about one object.
struct Notes {
    subject: String,
    warnings: Vec<Warning>,
    more: usize,
}

impl Notes {
    fn about(kind: &str, name: &ObjectName) -> Self {
        Self::of(format!("{kind} {name}"))
    }

    fn of(subject: String) -> Self {
        Self {
            subject,
            warnings: Vec::new(),
            more: 0,
        }
    }

    fn add(&mut self, problem: impl AsRef<str>, remedy: impl AsRef<str>) {
        if self.warnings.len() < SHOWN {
            self.warnings
                .push(Warning::new(&self.subject, problem, remedy));
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<Warning> {
        if self.more > 0 {
            let problem = format!("{} more parts of it were left out", self.more);
            self.warnings.push(Warning::new(
                self.subject,
                problem,
                "correct the first ones, then look again",
            ));
        }
        self.warnings
    }

    /// A protocol that is translated; TCP if none is given.
    fn protocol(&mut self, of: &str, protocol: Option<&str>) -> Option<Protocol> {
        match protocol {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(other) => {
                self.add(
                    format!("{of} has the unknown protocol `{other}`; the port is left out"),
                    "write TCP, UDP or SCTP",
                );
                None
            }
        }
    }

    /// A port number from 1 to 65535.
    fn port(&mut self, of: &str, number: i32) -> Option<u16> {
        self.number(number, || format!("{of} is {number}; the port is left out"))
    }

    /// The same at the nodes' addresses.
    fn node_port(&mut self, of: &str, number: i32) -> Option<u16> {
        self.number(number, || {
            format!("the nodePort of {of} is {number}; it is served at no node port")
        })
    }

    fn number(&mut self, number: i32, problem: impl Fn() -> String) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.add(problem(), "write a number from 1 to 65535");
        }
        port
    }
}
