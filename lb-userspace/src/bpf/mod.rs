//! The kernel's BPF interface where aya has none: system calls, links, the BPF file system, batches.
pub mod batch;
pub mod bpffs;
pub(crate) mod link;
pub(crate) mod syscall;

use std::io;

use aya::maps::MapError as AyaError;

/// The kernel's answer inside an error of aya's, if there is one.
pub(crate) fn io_error(error: AyaError) -> io::Error {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "two of aya's errors mean something to a caller"
    )]
    match error {
        AyaError::SyscallError(error) => error.io_error,
        AyaError::KeyNotFound | AyaError::ElementNotFound => {
            io::Error::from_raw_os_error(libc::ENOENT)
        }
        other => io::Error::other(other),
    }
}
