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

pub mod cluster;
pub mod control_plane;
pub mod machine;
pub mod oracle;
pub mod packets;
pub mod peers;
pub mod traffic;

/// Time and packets in memory, as `waggle trace` has them.
pub use lb_ebpf::memory::{clock as memory_clock, packet as memory_packet};
pub use machine::require::{require_root, skip};

use std::time::Instant;

/// The one place where the harness reads the clock.
pub fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "real sockets live in real time; the harness measures it here"
    )]
    Instant::now()
}
