//! Network devices: which there are, what is attached to them, and with which address packets leave by them.
pub mod attach;
pub mod clsact;
pub mod device;
pub(crate) mod inventory;
mod masquerade;
pub mod monitor;
pub mod node_device;
pub mod pattern;
mod programs;
