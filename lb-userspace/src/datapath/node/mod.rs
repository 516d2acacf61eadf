//! What the node's kernel and its set-up are.
pub mod host;
pub mod kernel;
