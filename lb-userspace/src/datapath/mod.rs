//! The kernel's side as the agent handles it: the object, its maps and programs, and where they hang.
//!
//! ```text
//! object ─▶ load (pinned maps, constants) ─▶ programs ─▶ attach: devices (TCX, clsact), cgroup
//!                                                          ▲
//!                                     netlink ─▶ monitor ──┘
//! ```
pub mod answers;
pub mod cleanup;
pub mod devices;
pub mod events;
pub mod node;
pub mod object;
pub mod sockets;

pub use crate::bpf::bpffs::BpfRoot;
pub use object::load::{Datapath, LoadOptions};

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
