//! One agent a node: a lock on the run folder and one on the bpffs root, held as long as the process lives.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// Name of the agent's socket in the run folder.
pub const SOCKET: &str = "agent.sock";

/// Why the node is not ours.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error(
        "another agent{} holds {path}: stop it first, or name a --run-dir and a --bpf-root that no other agent has",
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Held {
        /// What is locked.
        path: PathBuf,
        /// Who holds it, if that can be told.
        pid: Option<u32>,
    },
    /// The file or folder cannot be opened.
    #[error("cannot lock {path}: {error}")]
    Io {
        /// What was to be locked.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// The node is ours until this is dropped.
#[derive(Debug)]
pub struct NodeLock {
    _run: Flock<File>,
    _root: Option<Flock<File>>,
}

impl NodeLock {
    /// Locks `<run_dir>/lock`, making the folder if need be, and `bpf_root` if it is there.
    pub fn acquire(run_dir: &Path, bpf_root: &Path) -> Result<Self, LockError> {
        let path = run_dir.join("lock");
        let failed = |error| LockError::Io {
            path: path.clone(),
            error,
        };
        fs::create_dir_all(run_dir).map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let mut run = lock(file, &path)?;
        run.set_len(0)
            .and_then(|()| run.rewind())
            .and_then(|()| writeln!(run, "{}", std::process::id()))
            .map_err(failed)?;
        let root = match File::open(bpf_root) {
            Ok(folder) => Some(lock(folder, bpf_root)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(LockError::Io {
                    path: bpf_root.to_owned(),
                    error,
                });
            }
        };
        Ok(Self {
            _run: run,
            _root: root,
        })
    }
}

fn lock(file: File, path: &Path) -> Result<Flock<File>, LockError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, error)| {
        if error == nix::Error::EWOULDBLOCK {
            LockError::Held {
                path: path.to_owned(),
                pid: pid_in(&file).or_else(|| holder(&file)),
            }
        } else {
            LockError::Io {
                path: path.to_owned(),
                error: error.into(),
            }
        }
    })
}

/// The pid that the holder wrote into its file.
fn pid_in(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The holder of a lock according to /proc/locks (`1: FLOCK ADVISORY WRITE pid major:minor:inode 0 EOF`).
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_flock = words.nth(1)? == "FLOCK";
        let pid = words.nth(2)?.parse().ok()?;
        let same = words.next()?.rsplit(':').next()? == inode;
        (is_flock && same).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_is_told_the_pid_of_the_first() {
        let folder = std::env::temp_dir().join(format!("waggle-lock-{}", std::process::id()));
        let root = folder.join("bpf");
        fs::create_dir_all(&root).unwrap();
        let first = NodeLock::acquire(&folder.join("run"), &root).unwrap();
        let same_run = NodeLock::acquire(&folder.join("run"), &folder.join("none"));
        let same_root = NodeLock::acquire(&folder.join("other"), &root);
        let own = std::process::id();
        for refused in [same_run, same_root] {
            let error = refused.unwrap_err();
            assert!(
                matches!(&error, LockError::Held { pid: Some(pid), .. } if *pid == own),
                "{error:?}"
            );
            assert!(error.to_string().contains(&format!("pid {own}")), "{error}");
        }
        drop(first);
        NodeLock::acquire(&folder.join("run"), &root).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
