//! Waggle's node agent.
//!
//! ```text
//! watch -> convert -> model -> desired -> reconcile -> maps        a folder each; agent.rs is the loop that joins them
//! ```
pub mod agent;
pub mod bpf;
pub mod cli;
pub mod config;
pub mod convert;
pub mod datapath;
pub mod desired;
pub mod findings;
pub mod flows;
pub mod health;
pub mod maps;
pub mod model;
pub mod objects;
pub mod probe;
pub mod reconcile;
pub mod status;
pub mod supervise;
pub mod trace;
pub mod watch;

mod netlink;
