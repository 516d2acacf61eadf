//! An object of the cluster that cannot be read.
use crate::model::{ObjectName, ServiceName, Warning};

/// An object that exists, and of which the agent knows no more than this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name.
    pub name: ObjectName,
    /// Its uid; empty if it has none.
    pub uid: String,
    /// The Service that it is, or belongs to.
    pub service: Option<ServiceName>,
    /// Why it cannot be read.
    pub warning: Warning,
}
