//! Embeds the object of the kernel programs, if it has been built. It is never built from here: `cargo xtask ebpf`
//! does that. Checks and editors work without it; a build of a program that uses it says what to run.
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let object = target_folder().join("bpf/waggle-bpf");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let embedded =
        PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("waggle-bpf.object");
    match fs::copy(&object, &embedded) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(&embedded, []),
        Err(error) => Err(error),
    }
}

/// Where xtask puts what it builds: `CARGO_TARGET_DIR` if set, else `target`, seen from the workspace.
fn target_folder() -> PathBuf {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let workspace = package.parent().map_or(package.as_path(), Path::new);
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => workspace.join(folder),
        _ => workspace.join("target"),
    }
}
