//! Where the programs of the control plane are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The programs a test starts.
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];

/// The folder with the programs: `KUBEBUILDER_ASSETS`, which `cargo xtask test` sets, else what
/// `cargo xtask control-plane` has left in the cache.
pub fn assets() -> Result<PathBuf> {
    let named = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let candidates = match named {
        Some(folder) => vec![folder],
        None => cached(),
    };
    match candidates.into_iter().find(|folder| is_complete(folder)) {
        Some(folder) => Ok(folder),
        None => bail!(
            "no folder with {} in KUBEBUILDER_ASSETS or the cache: run `cargo xtask test \
             kubernetes`, which builds them",
            PROGRAMS.join(", ")
        ),
    }
}

fn is_complete(folder: &Path) -> bool {
    PROGRAMS
        .iter()
        .all(|program| folder.join(program).is_file())
}

/// The folders of the cache, the last version first.
fn cached() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("WAGGLE_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("waggle")))
        .or_else(|| Some(variable("HOME")?.join(".cache/waggle")));
    let Some(cache) = cache else {
        return Vec::new();
    };
    let entries = fs::read_dir(cache.join("control-plane"))
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    folders.reverse();
    folders
}
