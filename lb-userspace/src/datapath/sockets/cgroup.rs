//! The socket hooks, at the root of the cgroup hierarchy: every process of the machine passes them, and the programs
//! let all but those of the node's own network namespace go on.
use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::statfs::{FsType, fstatfs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::supervise::Tasks;
use crate::{
    bpf::{
        bpffs::BpfRoot,
        link,
        syscall::{self, AttachType, Target},
    },
    datapath::object::load::{Datapath, SOCKET_PROGRAMS},
};

/// `CGROUP2_SUPER_MAGIC` in linux/magic.h.
const CGROUP2: FsType = FsType(0x6367_7270);

/// A socket hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SocketHook {
    /// The program's name, which is that of the hook: `connect4`, …
    pub name: String,
    /// Whether it hangs at the cgroup root.
    pub attached: bool,
    /// Why not.
    pub error: Option<String>,
    /// How many programs of others hang there.
    pub foreign: usize,
}

/// Where the cgroup v2 hierarchy is mounted, according to /proc/self/mounts.
pub fn root() -> Result<PathBuf> {
    let mounts =
        std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    find(&mounts).context(
        "no cgroup v2 hierarchy is mounted (see /proc/self/mounts); mount one, or say where it is by --cgroup-root",
    )
}

/// The first cgroup2 mount of a mount table.
fn find(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        // The kernel writes a space in a path as \040.
        (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    })
}

/// Opens a folder of the cgroup v2 hierarchy.
///
/// # Errors
/// If it is none.
pub fn open(cgroup: &Path) -> Result<File> {
    let folder = File::open(cgroup)
        .with_context(|| format!("cannot open the cgroup root {}", cgroup.display()))?;
    if fstatfs(&folder)?.filesystem_type() != CGROUP2 {
        bail!(
            "{} is no cgroup v2 folder; leave out --cgroup-root, or name the place of a cgroup2 mount",
            cgroup.display()
        );
    }
    Ok(folder)
}

/// Attaches every socket program to this cgroup, or gives the links that are pinned the new programs.
pub fn attach(datapath: &Datapath, cgroup: &Path) -> Result<Vec<SocketHook>> {
    let folder = open(cgroup)?;
    // A cgroup's id is its inode number.
    let id = folder.metadata().map(|metadata| metadata.ino())?;
    let target = Target::Cgroup(folder.as_fd());
    SOCKET_PROGRAMS
        .iter()
        .map(|(name, attach_type)| {
            let path = datapath.root().links().join(name);
            let attached = link::attach(&path, datapath.program(name)?, target, id, *attach_type);
            let everybody = syscall::attached(target, *attach_type).map_or(0, |all| all.len());
            Ok(SocketHook {
                name: (*name).to_owned(),
                attached: attached.is_ok(),
                foreign: everybody.saturating_sub(usize::from(attached.is_ok())),
                error: attached.err().map(|error| error.to_string()),
            })
        })
        .collect()
}

/// Warns of hooks that are not attached, unless the last look found the same.
pub fn warn(cgroup: &Path, before: &[SocketHook], now: &[SocketHook]) {
    for SocketHook { name, error, .. } in now.iter().filter(|hook| !before.contains(hook)) {
        if let Some(error) = error {
            tracing::warn!(
                "cannot attach {name} to {}: {error}; processes of the node itself do not reach services by it, and it is tried again",
                cgroup.display()
            );
        }
    }
}

/// Looks every `period` whether all hooks are attached, and attaches those that are not: because somebody has taken them
/// away, or because that failed before. What comes back says how they are.
pub fn keep(
    datapath: Datapath,
    cgroup: PathBuf,
    hooks: Vec<SocketHook>,
    period: Duration,
    tasks: &Tasks,
) -> watch::Receiver<Vec<SocketHook>> {
    let (sender, receiver) = watch::channel(hooks);
    tasks.spawn("watch of the socket hooks", async move {
        while !sender.is_closed() {
            tokio::time::sleep(period).await;
            let before = sender.borrow().clone();
            let lost = lost(&datapath, &cgroup, &before);
            if !lost.is_empty() {
                tracing::warn!(
                    "somebody has detached the socket hooks {} from {}; they are attached again",
                    lost.join(", "),
                    cgroup.display()
                );
            }
            if lost.is_empty() && before.iter().all(|hook| hook.attached) {
                continue;
            }
            let now = attach(&datapath, &cgroup).unwrap_or_else(|error| {
                let error = format!("{error:#}");
                before
                    .iter()
                    .map(|hook| not_attached(hook, &error))
                    .collect()
            });
            warn(&cgroup, &before, &now);
            sender.send_if_modified(|hooks| {
                let changed = *hooks != now;
                *hooks = now;
                changed
            });
        }
    });
    receiver
}

/// A hook that could not be attached.
fn not_attached(hook: &SocketHook, error: &str) -> SocketHook {
    SocketHook {
        name: hook.name.clone(),
        attached: false,
        error: Some(error.to_owned()),
        foreign: 0,
    }
}

/// Which hooks were attached and are no more: all, if their cgroup is gone. What cannot be asked counts as there.
fn lost(datapath: &Datapath, cgroup: &Path, hooks: &[SocketHook]) -> Vec<&'static str> {
    let was_attached = |name: &str| hooks.iter().any(|it| it.name == name && it.attached);
    let Ok(folder) = open(cgroup) else {
        let names = SOCKET_PROGRAMS.iter().map(|(name, _)| *name);
        return names.filter(|name| was_attached(name)).collect();
    };
    let is_lost = |name: &str, attach_type: AttachType| -> Option<bool> {
        let (id, _) = syscall::program_id_and_name(datapath.program(name).ok()?).ok()?;
        let all = syscall::attached(Target::Cgroup(folder.as_fd()), attach_type).ok()?;
        Some(all.iter().all(|it| it.program_id != id))
    };
    SOCKET_PROGRAMS
        .iter()
        .filter(|(name, kind)| was_attached(name) && is_lost(name, *kind) == Some(true))
        .map(|(name, _)| *name)
        .collect()
}

/// Ends the links of the socket hooks; says which there were.
pub(crate) fn detach(root: &BpfRoot) -> io::Result<Vec<&'static str>> {
    let mut removed = Vec::new();
    for (name, _) in SOCKET_PROGRAMS {
        if link::remove(&root.links().join(name))? {
            removed.push(*name);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_hierarchy_is_found_wherever_it_is_mounted() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(find(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let odd = "none /run/my\\040cgroup cgroup2 rw 0 0\n";
        assert_eq!(find(odd), Some("/run/my cgroup".into()));
        assert_eq!(find("tmpfs / tmpfs rw 0 0\n"), None);
    }
}
