//! The folder for what outlives a clone: kernels, Rust's source, built control-plane programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A folder of the given name in the cache, made if it is not there:
/// `$WAGGLE_CACHE`, else `$XDG_CACHE_HOME/waggle`, else `~/.cache/waggle`.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let folder = root(|variable| std::env::var_os(variable).map(PathBuf::from))?.join(name);
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
    Ok(folder)
}

fn root(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    if let Some(cache) = absolute("WAGGLE_CACHE") {
        return Ok(cache);
    }
    if let Some(cache) = absolute("XDG_CACHE_HOME") {
        return Ok(cache.join("waggle"));
    }
    match absolute("HOME") {
        Some(home) => Ok(home.join(".cache/waggle")),
        None => bail!("no folder for the cache: set WAGGLE_CACHE or HOME to an absolute path"),
    }
}

/// Makes `destination` from the finished folder `unfinished` in one step, so that an interrupted
/// download or build is never taken for a whole one.
pub(crate) fn publish(unfinished: &Path, destination: &Path) -> Result<()> {
    if destination.exists() {
        fs::remove_dir_all(destination)
            .with_context(|| format!("cannot replace {}", destination.display()))?;
    }
    fs::rename(unfinished, destination).with_context(|| {
        format!(
            "cannot move {} to {}",
            unfinished.display(),
            destination.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(pairs: &[(&str, &str)]) -> Result<PathBuf> {
        root(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn own_variable_wins_over_xdg_and_home() {
        let all = [
            ("WAGGLE_CACHE", "/w"),
            ("XDG_CACHE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(root_with(&all).unwrap(), Path::new("/w"));
        assert_eq!(root_with(&all[1..]).unwrap(), Path::new("/x/waggle"));
        assert_eq!(root_with(&all[2..]).unwrap(), Path::new("/h/.cache/waggle"));
    }

    #[test]
    fn relative_paths_are_ignored() {
        assert_eq!(
            root_with(&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")]).unwrap(),
            Path::new("/h/.cache/waggle")
        );
        assert!(root_with(&[("WAGGLE_CACHE", "w")]).is_err());
    }
}
