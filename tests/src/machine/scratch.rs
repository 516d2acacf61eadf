//! A folder for one test's files, removed with its owner.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A word that no other test of this machine uses: `waggle-test-<pid>-<n>`.
pub fn unique_tag() -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("waggle-test-{}-{count}", process::id())
}

/// A folder of its own under the temporary folder.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder.
    pub fn new() -> Result<Self> {
        let path = env::temp_dir().join(unique_tag());
        fs::create_dir_all(&path).with_context(|| format!("make folder {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it and returns its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, contents).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that stays behind in /tmp spoils nothing.
        drop(fs::remove_dir_all(&self.0));
    }
}
