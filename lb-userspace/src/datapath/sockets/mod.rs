//! The socket hooks.
pub mod cgroup;
