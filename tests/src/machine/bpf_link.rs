//! Ending a link as a stranger with `bpftool link detach` would: its pin stays, and hangs on nothing.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for BPF_LINK_DETACH")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

// enum bpf_cmd in linux/bpf.h.
const OBJ_GET: libc::c_int = 7;
const LINK_DETACH: libc::c_int = 34;

/// Detaches the link pinned at `pin` and leaves the pin.
pub fn detach(pin: &Path) -> Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that lives until the end of this function.
    let link = unsafe { bpf(OBJ_GET, [path.as_ptr() as u64, 0]) };
    let link = link.with_context(|| format!("open the link {}", pin.display()))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let number = u64::try_from(link.as_raw_fd())?;
    // SAFETY: no pointers; the descriptor is the first word, little-endian as all we run on.
    let detached = unsafe { bpf(LINK_DETACH, [number, 0]) };
    detached.with_context(|| format!("detach the link {}", pin.display()))?;
    Ok(())
}

/// The system call with its first sixteen bytes of attributes; the rest is zero to the kernel.
///
/// # Safety
/// A pointer in the attributes points to memory that lives until the call returns.
unsafe fn bpf(command: libc::c_int, attributes: [u64; 2]) -> io::Result<RawFd> {
    // SAFETY: the attributes are plain memory of the length that is passed; the caller answers for
    // what they point to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    match RawFd::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
