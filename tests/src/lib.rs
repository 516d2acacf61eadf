//! The harness of the test suites in `tests/tests`, and what each of them needs.
//!
//! ```text
//! datapath_*     nothing: the datapath on the host against the naive reference
//! trace          nothing but the agent's program (WAGGLE_BIN)
//! kernel_*       root: the programs in this kernel, packet by packet
//! kubernetes_*   root: a real API server and controllers
//! netns_*        root: real namespaces, real sockets, the agent's program (WAGGLE_BIN)
//! ```
//!
//! A test that lacks an ability says so by [`skip`]; with `WAGGLE_REQUIRE_ROOT=1` a missing ability
//! is a failure, so that CI cannot pass by skipping.

pub mod agent_process;
pub mod bench;
pub mod bpf_link;
pub mod budget;
pub mod checks;
pub mod client;
pub mod cluster_scenario;
pub mod cluster_state;
pub mod control_plane;
pub mod dissect;
pub mod download;
pub mod expect;
pub mod generate;
pub mod host_datapath;
pub mod kernel_program;
pub mod kubernetes_cluster;
pub mod kubernetes_rules;
pub mod load;
pub mod lone_agent;
pub mod memory_tables;
pub mod netns;
pub mod nginx;
pub mod packet_builder;
pub mod peers;
pub mod printed;
pub mod process;
pub mod questions;
pub mod random_cluster;
pub mod reference;
pub mod require;
pub mod scenario;
pub mod scratch;
pub mod service_cluster;
pub mod socket_option;
pub mod told_twice;
pub mod topology;
pub mod tun;
pub mod udp;

/// Time and packets in memory, as `waggle trace` has them.
pub use lb_ebpf::memory::{clock as memory_clock, packet as memory_packet};
pub use require::{require_root, skip};

use std::time::Instant;

/// The one place where the harness reads the clock.
pub fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "real sockets live in real time; the harness measures it here"
    )]
    Instant::now()
}
