//! From what the maps say to what they should say, one change at a time.
pub mod apply;
pub mod backoff;
pub mod plan;

pub use apply::{Stopped, apply};
pub use backoff::Backoff;
pub use plan::{Change, FamilyChange, plan};
