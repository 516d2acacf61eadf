//! The kernel's side as the agent handles it: the object, its maps and programs, and where they hang.
//!
//! ```text
//! object ─▶ load (pinned maps, constants) ─▶ programs ─▶ attach: devices (TCX, clsact), cgroup
//!                                                          ▲
//!                                     netlink ─▶ monitor ──┘
//! ```
pub mod attach;
pub mod batch;
pub mod bpffs;
pub mod cgroup;
pub mod cleanup;
pub mod clsact;
pub mod contract;
pub mod device;
pub mod events;
pub mod host;
pub mod kernel;
pub mod load;
pub mod lock;
pub mod monitor;
pub mod pattern;
pub mod probe;
pub mod refusals;
mod resets;

mod inventory;
mod link;
mod masquerade;
pub(crate) mod syscall;

pub use bpffs::BpfRoot;
pub use load::{Datapath, LoadOptions};

/// The bytes of the object, aligned as the parser wants them; empty while nobody has built it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/waggle-bpf.object"));

/// The object of the kernel programs that was embedded when this crate was built. Without one the crate can be checked
/// and documented, and nothing can be built that uses it.
pub fn object() -> &'static [u8] {
    const {
        assert!(
            !OBJECT.is_empty(),
            "the kernel programs are not built: run `cargo xtask ebpf`, then build again"
        );
    }
    OBJECT
}
