//! The machine's own packages: which are needed, why, and installing those that are missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, report};

/// A package, what proves that it is there, and what needs it.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) proof: Proof,
    pub(crate) why: &'static str,
}

/// What is there when a package is.
pub(crate) enum Proof {
    /// A program in PATH or one of the folders for administrators.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

/// What every build needs.
pub(crate) const BUILD: &[Package] = &[
    Package {
        name: "gcc",
        proof: Proof::Program("cc"),
        why: "links programs",
    },
    Package {
        name: "libc6-dev",
        proof: Proof::File("/usr/include/stdio.h"),
        why: "the C library to link with",
    },
];

/// What a virtual machine needs, beside what it runs.
pub(crate) const MACHINE: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        proof: Proof::Program("qemu-system-x86_64"),
        why: "the virtual machine",
    },
    Package {
        name: "busybox-static",
        proof: Proof::Program("busybox"),
        why: "the small tools inside the virtual machine",
    },
];

/// What unpacks Ubuntu's kernel modules.
pub(crate) const ZSTD: Package = Package {
    name: "zstd",
    proof: Proof::Program("zstd"),
    why: "unpacks kernel modules",
};

/// The programs that the scenario starts, in the virtual machine.
pub(crate) const SCENARIO: &[Package] = &[
    Package {
        name: "nginx",
        proof: Proof::Program("nginx"),
        why: "the pods' server",
    },
    Package {
        name: "curl",
        proof: Proof::Program("curl"),
        why: "the clients",
    },
    Package {
        name: "iproute2",
        proof: Proof::Program("ip"),
        why: "namespaces and their links",
    },
];

/// The programs that tests start beside those of the scenario, on the host and in virtual machines.
pub(crate) const TESTS: &[Package] = &[
    Package {
        name: "nftables",
        proof: Proof::Program("nft"),
        why: "filters in the way of services",
    },
    Package {
        name: "wireguard-tools",
        proof: Proof::Program("wg"),
        why: "tunnels between nodes that carry plain IP",
    },
    Package {
        name: "ethtool",
        proof: Proof::Program("ethtool"),
        why: "offloads of links",
    },
];

/// Installs what is missing of the packages; says what and why. Does nothing if nothing is.
pub(crate) fn ensure(packages: &[&[Package]]) -> Result<()> {
    let missing: Vec<&Package> = packages
        .iter()
        .copied()
        .flatten()
        .filter(|package| !package.proof.holds())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    report::step(&format!("installing packages: {}", names.join(" ")), || {
        for package in &missing {
            report::note(&format!("{}: {}", package.name, package.why));
        }
        if install(&names).is_err() {
            // The usual reason: no lists yet, or lists that name versions long gone.
            update_lists()?;
            install(&names)?;
        }
        match missing.iter().find(|package| !package.proof.holds()) {
            Some(package) => {
                bail!(
                    "{} was installed, yet {} is not there",
                    package.name,
                    package.proof.what()
                )
            }
            None => Ok(()),
        }
    })
}

/// Fetches the lists of the machine's own package sources.
pub(crate) fn update_lists() -> Result<()> {
    process::output(as_root("apt-get")?.args(["--quiet", "update"]))
        .context("cannot fetch the package lists")
        .map(drop)
}

/// Installs packages without starting what they bring: a server is wanted for its program only,
/// not as a service of this machine (Debian's hook for that is the file policy-rc.d).
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet --yes --no-install-recommends install "$@" </dev/null || exit
case " $* " in *" nginx "*) [ -d /run/systemd/system ] && systemctl --quiet disable nginx ;; esac
exit 0
"#;

fn install(names: &[&str]) -> Result<()> {
    process::output(as_root("sh")?.args(["-c", INSTALL, "install"]).args(names))
        .with_context(|| format!("cannot install {}", names.join(" ")))
        .map(drop)
}

/// A command that runs as root: by itself if we are, else through sudo where that asks nothing.
fn as_root(program: &str) -> Result<Command> {
    if process::is_root() {
        return Ok(Command::new(program));
    }
    let sudo = process::output(Command::new("sudo").args(["-n", "true"]));
    if sudo.is_err() {
        bail!(
            "installing packages needs root, and sudo does not work without a password: install \
             them yourself with apt-get, or run this once as root"
        );
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    Ok(command)
}

impl Proof {
    fn holds(&self) -> bool {
        match self {
            Self::Program(name) => process::find(name).is_some(),
            Self::File(path) => Path::new(path).exists(),
        }
    }

    fn what(&self) -> &str {
        match self {
            Self::Program(what) | Self::File(what) => what,
        }
    }
}
