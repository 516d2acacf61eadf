//! The object: what its maps must be, loading it, and the lock of the node it is loaded on.
pub mod contract;
pub mod load;
pub mod lock;
