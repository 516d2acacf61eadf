//! Names: of objects, and of a service's port, which is the identity that everything below the model hangs on.
use std::fmt;

use lb_common::Protocol;

use crate::model::printable;

/// Namespace and name of a Kubernetes object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace; never empty (an object without one is in `default`).
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// The name of a Service.
pub type ServiceName = ObjectName;
/// The name of an `EndpointSlice`.
pub type SliceName = ObjectName;

impl ObjectName {
    /// A name in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            printable(&self.namespace),
            printable(&self.name)
        )
    }
}

/// One port of a Service: kube-proxy's `ServicePortName`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    /// The Service.
    pub service: ServiceName,
    /// The port's name; empty if the Service has one port without a name.
    pub port: String,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port.is_empty() {
            write!(f, "{}/{}", self.service, self.protocol)
        } else {
            let port = printable(&self.port);
            write!(f, "{}:{port}/{}", self.service, self.protocol)
        }
    }
}
