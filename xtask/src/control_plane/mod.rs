//! Where the programs of a real Kubernetes control plane come from.
//!
//! In this order: the folder that `KUBEBUILDER_ASSETS` names (the convention of Kubernetes' own
//! envtest), the cache, a build with Go from the Go module proxy.

mod go;
mod version;

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cache, process, report};
use go::Go;
use version::Version;

/// The Kubernetes version the tests are written against.
const KUBERNETES: Version = Version::new(1, 36, 1);

/// The etcd version that goes with it.
const ETCD: Version = Version::new(3, 6, 16);

/// What the folder of [`assets`] holds. kube-proxy is the referee of comparisons, kubectl is for
/// people at a shell.
const PROGRAMS: [&str; 5] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kubectl",
];

/// Prints the folder with the programs, on a line of its own at the end.
pub fn print() -> Result<()> {
    println!("{}", assets()?.display());
    Ok(())
}

/// Gives the folder with the programs of the control plane, after building what is missing.
///
/// The tests are told the folder by `KUBEBUILDER_ASSETS`.
pub fn assets() -> Result<PathBuf> {
    match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(folder) if !folder.is_empty() => complete(Path::new(&folder)),
        _ => built(KUBERNETES, &PROGRAMS),
    }
}

/// The given folder if it has every program; else a folder in the cache that links to its programs
/// and to the others, which are built.
fn complete(given: &Path) -> Result<PathBuf> {
    let given = fs::canonicalize(given)
        .with_context(|| format!("KUBEBUILDER_ASSETS names {}", given.display()))?;
    let lacking = missing(&given, &PROGRAMS);
    if lacking.is_empty() {
        return Ok(given);
    }
    // A controller manager must not be newer than its API server, so it is built in its version.
    let version = Version::of(&given.join("kube-apiserver")).unwrap_or(KUBERNETES);
    println!(
        "KUBEBUILDER_ASSETS={} has no {}: taken from a build of Kubernetes {version}",
        given.display(),
        lacking.join(", ")
    );
    let built = built(version, &lacking)?;

    let mut hash = DefaultHasher::new();
    (&given, &lacking).hash(&mut hash);
    let joined = cache::folder("control-plane")?.join(format!("joined-{:016x}", hash.finish()));
    if missing(&joined, &PROGRAMS).is_empty() {
        return Ok(joined);
    }
    let unfinished = joined.with_extension(std::process::id().to_string());
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    for program in PROGRAMS {
        let origin = if lacking.contains(&program) {
            &built
        } else {
            &given
        };
        let link = unfinished.join(program);
        symlink(origin.join(program), &link)
            .with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    cache::publish(&unfinished, &joined)?;
    Ok(joined)
}

/// The cache's folder for a Kubernetes version, with at least these programs in it.
///
/// A program appears there by a rename, whole; two builds at a time wait for each other.
fn built(kubernetes: Version, programs: &[&'static str]) -> Result<PathBuf> {
    let cache = cache::folder("control-plane")?;
    let folder = cache.join(kubernetes.to_string());
    if missing(&folder, programs).is_empty() {
        return Ok(folder);
    }
    let lock = cache.join("lock");
    let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    lock.lock()
        .context("cannot lock the cache of the control plane")?;
    let lacking = missing(&folder, programs);
    if lacking.is_empty() {
        return Ok(folder);
    }

    let go = Go::find()?;
    let unfinished = cache.join("unfinished");
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    let (etcd, of_kubernetes): (Vec<_>, Vec<_>) =
        lacking.iter().partition(|program| **program == "etcd");
    if !etcd.is_empty() {
        let what = format!("building etcd {ETCD} for the tests with Kubernetes (about a minute)");
        report::step(&what, || build_etcd(&go, &cache, &unfinished))?;
    }
    if !of_kubernetes.is_empty() {
        let what = format!(
            "building {} {kubernetes} (6 minutes on two cores; kept in {})",
            of_kubernetes.join(", "),
            folder.display()
        );
        report::step(&what, || {
            build_kubernetes(&go, kubernetes, &of_kubernetes, &cache, &unfinished)
        })?;
    }

    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for program in lacking {
        let file = unfinished.join(program);
        process::output(Command::new(&file).arg(if program == "kubectl" {
            // `kubectl version` alone asks a server.
            "help"
        } else {
            "--version"
        }))
        .with_context(|| format!("the {program} just built does not run"))?;
        fs::rename(&file, folder.join(program))
            .with_context(|| format!("cannot move {} to {}", file.display(), folder.display()))?;
    }
    fs::remove_dir_all(&unfinished)
        .with_context(|| format!("cannot remove {}", unfinished.display()))?;
    Ok(folder)
}

fn missing(folder: &Path, programs: &[&'static str]) -> Vec<&'static str> {
    programs
        .iter()
        .copied()
        .filter(|program| !folder.join(program).is_file())
        .collect()
}

fn build_etcd(go: &Go, cache: &Path, into: &Path) -> Result<()> {
    let module = "go.etcd.io/etcd/server/v3";
    let requirements = format!("require {module} {}\n", ETCD.tag());
    let work = work_folder(
        cache,
        "etcd",
        &go::module_file("go.etcd.io/etcd", &requirements),
    )?;
    // The program's name would be the last word of the module's path, "v3".
    go.build(&work, "", &into.join("etcd"), &[module.to_owned()])
}

fn build_kubernetes(
    go: &Go,
    version: Version,
    programs: &[&str],
    cache: &Path,
    into: &Path,
) -> Result<()> {
    let module = "k8s.io/kubernetes";
    let tag = version.tag();
    let of_kubernetes = go.module_file_of(&format!("{module}@{tag}"))?;
    let requirements = format!(
        "require {module} {tag}\n\n{}",
        replacements(&of_kubernetes, version)?
    );
    let work = work_folder(cache, "kubernetes", &go::module_file(module, &requirements))?;
    // The API server tells its version to clients, who decide by it what to expect.
    let stamp = "k8s.io/component-base/version";
    let stamps = format!(
        "-X {stamp}.gitVersion={tag} -X {stamp}.gitMajor={} -X {stamp}.gitMinor={}",
        version.major, version.minor
    );
    let packages: Vec<_> = programs
        .iter()
        .map(|program| format!("{module}/cmd/{program}"))
        .collect();
    go.build(&work, &stamps, into, &packages)
}

/// Kubernetes' own modules are asked for as v0.0.0, to be found beside it in its repository; here
/// they come as what they are published as, v0.36.1 for Kubernetes v1.36.1.
fn replacements(module_file: &str, version: Version) -> Result<String> {
    let published = Version {
        major: 0,
        ..version
    }
    .tag();
    let lines: Vec<_> = module_file
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" v0.0.0"))
        .filter(|module| module.starts_with("k8s.io/"))
        .map(|module| format!("\t{module} => {module} {published}\n"))
        .collect();
    if lines.is_empty() {
        bail!("Kubernetes {version} names none of its own modules in its go.mod");
    }
    Ok(format!("replace (\n{})\n", lines.concat()))
}

fn work_folder(cache: &Path, name: &str, module_file: &str) -> Result<PathBuf> {
    let work = cache.join("work").join(name);
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let file = work.join("go.mod");
    fs::write(&file, module_file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kubernetes_own_modules_are_replaced() {
        let module_file = "require (\n\tk8s.io/api v0.0.0\n\tk8s.io/klog/v2 v2.140.0\n\
                           \tk8s.io/kubelet v0.0.0\n\texample.org/x v0.0.0\n)\n\
                           replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        assert_eq!(
            replacements(module_file, Version::new(1, 36, 1)).unwrap(),
            "replace (\n\tk8s.io/api => k8s.io/api v0.36.1\n\
             \tk8s.io/kubelet => k8s.io/kubelet v0.36.1\n)\n"
        );
        assert!(replacements("module k8s.io/kubernetes\n", KUBERNETES).is_err());
    }

    #[test]
    fn missing_programs_are_named() {
        let folder = std::env::temp_dir().join(format!("waggle-assets-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for program in ["etcd", "kube-apiserver", "kubectl"] {
            fs::write(folder.join(program), "").unwrap();
        }
        let lacking = missing(&folder, &PROGRAMS);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(lacking, ["kube-controller-manager", "kube-proxy"]);
    }
}
