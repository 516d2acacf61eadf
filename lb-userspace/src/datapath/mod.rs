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

use thiserror::Error;

/// The bytes of the object, aligned as the parser wants them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/waggle-bpf.object"));

/// There is no object in this program.
#[derive(Debug, Error)]
#[error("object not built: cargo xtask ebpf, then build this program again")]
pub struct NotBuilt;

/// The object of the kernel programs that was embedded when this crate was built.
pub fn object() -> Result<&'static [u8], NotBuilt> {
    if OBJECT.is_empty() {
        Err(NotBuilt)
    } else {
        Ok(OBJECT)
    }
}
