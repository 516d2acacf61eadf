//! Links that outlive the agent: pinned, and given the next program in place.
use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use crate::bpf::syscall::{self, AttachType, LinkInfo, Target};

/// Makes sure that a link pinned at `path` hangs on `target` and runs `program`.
///
/// A living link of an earlier agent gets the program by one atomic exchange; anything else at the path (a link whose
/// device is gone, one that hangs elsewhere) is ended and replaced. `target_id` is what the kernel calls the target
/// in [`LinkInfo::target`].
pub(crate) fn attach(
    path: &Path,
    program: BorrowedFd<'_>,
    target: Target<'_>,
    target_id: u64,
    attach_type: AttachType,
) -> io::Result<LinkInfo> {
    if let Some((link, info)) = open(path)? {
        let (program_id, _) = syscall::program_id_and_name(program)?;
        let same_place = info.target == target_id && info.attach_type == attach_type;
        if same_place && info.program_id == program_id {
            return Ok(info);
        }
        if same_place && syscall::update_link(link.as_fd(), program).is_ok() {
            return syscall::link_info(link.as_fd());
        }
        remove(path)?;
    }
    let link = syscall::create_link(program, target, attach_type)?;
    // Without its pin the link would end with the process: it is dropped, and thereby detached, on failure.
    syscall::pin(link.as_fd(), path)?;
    syscall::link_info(link.as_fd())
}

/// The link pinned at `path`, if there is one.
pub(crate) fn open(path: &Path) -> io::Result<Option<(OwnedFd, LinkInfo)>> {
    match syscall::pinned(path) {
        Ok(link) => {
            let info = syscall::link_info(link.as_fd())?;
            Ok(Some((link, info)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ends the link pinned at `path` and removes the pin. True if there was one.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    let Some((link, _)) = open(path)? else {
        return Ok(false);
    };
    // A link whose device is gone is detached already and says ENOLINK; one of an older kernel says EOPNOTSUPP and
    // ends with its last reference.
    drop(syscall::detach_link(link.as_fd()));
    fs::remove_file(path)?;
    Ok(true)
}
