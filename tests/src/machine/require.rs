//! What a test needs of the machine, and how it says that it is missing.

use std::env;
use std::io::Write as _;
use std::path::Path;

/// Names the test that runs on this thread; threads of the harness carry their test's name.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

/// Prints `SKIPPED <test>: <reason>` where no capture hides it; `cargo xtask test` counts these lines.
pub fn skip(reason: &str) {
    print(&format!("SKIPPED {}: {reason}\n", test_name()));
}

/// Prints `MEASURED <text>` where no capture hides it; `cargo xtask test` shows these lines.
pub fn measured(text: &str) {
    print(&format!("MEASURED {text}\n"));
}

/// Writes to standard error where libtest does not capture it.
pub(crate) fn print(text: &str) {
    // A closed standard error leaves nowhere to say it.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// Whether this run must not skip for want of root (`WAGGLE_REQUIRE_ROOT=1`, set by CI and the VM).
fn is_root_required() -> bool {
    env::var_os("WAGGLE_REQUIRE_ROOT").is_some_and(|value| value == "1")
}

/// True if the process is root; else skips the test.
///
/// ```no_run
/// # fn test() -> anyhow::Result<()> {
/// if !tests::require_root() {
///     return Ok(());
/// }
/// # Ok(()) }
/// ```
///
/// # Panics
/// If it is not and root is required (`WAGGLE_REQUIRE_ROOT=1`).
pub fn require_root() -> bool {
    require(nix::unistd::geteuid().is_root(), "needs root")
}

/// True if `is_there`; else skips the test with `reason`.
///
/// # Panics
/// If it is missing and abilities are required (`WAGGLE_REQUIRE_ROOT=1`).
pub fn require(is_there: bool, reason: &str) -> bool {
    assert!(
        is_there || !is_root_required(),
        "{}: {reason}, and WAGGLE_REQUIRE_ROOT=1 forbids to skip",
        test_name()
    );
    if !is_there {
        skip(reason);
    }
    is_there
}

/// True if `is_there`; else skips the test. For abilities that only some kernels have (modules).
pub fn optional(is_there: bool, reason: &str) -> bool {
    if !is_there {
        skip(reason);
    }
    is_there
}

/// True if bridges can hand their packets to netfilter here (`br_netfilter`).
pub fn has_bridge_netfilter() -> bool {
    Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
}

/// True if a program is in one of the folders of `PATH`.
pub fn has_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// True if the kernel makes network devices of a kind (`ipip`, `wireguard`, `vlan id 5`); needs root.
pub fn has_device_kind(kind: &str) -> anyhow::Result<bool> {
    let probe = crate::machine::netns::Namespace::new("probe")?;
    probe.ip("link add under type veth peer name other")?;
    let on_top = probe.ip(&format!("link add name probe0 link under type {kind}"));
    let alone = probe.ip(&format!("link add name probe1 type {kind}"));
    Ok(on_top.is_ok() || alone.is_ok())
}
