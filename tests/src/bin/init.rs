//! PID 1 of the test VM: mounts, loads modules, runs the commands of `/job`, says how they ended
//! and powers off.
//!
//! Two serial lines: the kernel speaks on the first, the commands on the second, where lines that
//! begin with [`MARK`] are for `cargo xtask`.
#![expect(
    clippy::print_stdout,
    reason = "standard output is the line to cargo xtask"
)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout};

/// What lines for `cargo xtask` begin with.
const MARK: &str = "[waggle-vm]";

/// The line the commands speak on.
const LINE: &str = "/dev/ttyS1";

/// One command a line: `NAME=value` fields, then the program and its arguments, separated by tabs.
/// The variable PWD is the folder the command starts in.
/// The word `!terminal` in front gives the command the line as its controlling terminal.
const JOB: &str = "/job";

/// The files of the modules to load, one a line, in an order in which they load.
const MODULES: &str = "/modules.list";

/// Where the commands are looked for. The kernel gives PID 1 no PATH.
const PATH: &str = "/usr/sbin:/usr/bin";

/// (type, where, options) of what is mounted. Not `/tmp` and `/run`: the root is memory already, and programs lie in it
/// where they lie outside, be that below `/tmp`.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("bpf", "/sys/fs/bpf", "mode=0700"),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
];

fn main() {
    if std::process::id() != 1 {
        println!("init: this is PID 1 of the test VM, started by `cargo xtask run`");
        std::process::exit(2);
    }
    let verdict = match prepare().and_then(|()| run_job()) {
        Ok(status) => status,
        Err(error) => {
            println!("{MARK} error: {error:#}");
            255
        }
    };
    println!("{MARK} verdict {verdict}");
    // The line must be empty before the machine goes: what is still in it would be lost.
    if let Ok(line) = File::open(LINE) {
        let _: nix::Result<()> = nix::sys::termios::tcdrain(line);
    }
    let _: nix::Result<std::convert::Infallible> = reboot(RebootMode::RB_POWER_OFF);
}

fn prepare() -> Result<()> {
    mount_one("devtmpfs", "/dev", "mode=0755")?;
    let line = OpenOptions::new().read(true).write(true).open(LINE);
    let line = line.with_context(|| format!("cannot open {LINE}"))?;
    raw_output(&line)?;
    dup2_stdout(&line).context("cannot make the line the standard output")?;
    dup2_stderr(&line).context("cannot make the line the standard error")?;
    for (kind, place, options) in MOUNTS {
        mount_one(kind, place, options)?;
    }
    fs::set_permissions("/tmp", Permissions::from_mode(0o1777)).context("cannot open /tmp")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("{MARK} reached init on Linux {}", release.trim());
    // Tunnel modules put a device of their own into every new namespace, unless told not to.
    fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1")
        .context("cannot keep tunnel devices out of new namespaces")?;
    load_modules(&fs::read_to_string(MODULES).unwrap_or_default());
    fs::write("/proc/sys/kernel/hostname", "waggle-vm").context("cannot name the machine")?;
    let loopback = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .env("PATH", PATH)
        .status();
    loopback.context("cannot start `ip link set lo up`")?;
    Ok(())
}

/// Lines end as the programs wrote them, without a carriage return.
fn raw_output(line: &File) -> Result<()> {
    let mut settings = nix::sys::termios::tcgetattr(line)?;
    settings
        .output_flags
        .remove(nix::sys::termios::OutputFlags::OPOST);
    nix::sys::termios::tcsetattr(line, nix::sys::termios::SetArg::TCSANOW, &settings)?;
    Ok(())
}

fn mount_one(kind: &str, place: &str, options: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
    match mount(
        Some(kind),
        place,
        Some(kind),
        MsFlags::empty(),
        Some(options),
    ) {
        // devtmpfs and tracefs may be there already.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot mount {kind} at {place}")),
    }
}

/// Loads the modules in the order of the list. One that does not load is named and left out: the
/// test that needs it says what is missing.
fn load_modules(list: &str) {
    for path in list.lines() {
        let loaded = File::open(path)
            .map_err(anyhow::Error::from)
            .and_then(
                |file| match finit_module(file, c"", ModuleInitFlags::empty()) {
                    Ok(()) | Err(Errno::EEXIST) => Ok(()),
                    Err(error) => Err(error.into()),
                },
            );
        if let Err(error) = loaded {
            println!("{MARK} module {path} did not load: {error}");
        }
    }
}

/// Runs every command, the later ones too when one fails; gives the status of the first failure.
fn run_job() -> Result<i32> {
    let job = fs::read_to_string(JOB).with_context(|| format!("cannot read {JOB}"))?;
    let mut verdict = 0;
    for (number, line) in job.lines().enumerate() {
        let begin = now();
        println!("{MARK} command {} begins", number + 1);
        let status = match start(line).and_then(|child| wait(&child)) {
            Ok(status) => status,
            Err(error) => {
                println!("{error:#}");
                127
            }
        };
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "\n{MARK} command {} exited {status} after {seconds:.1} s",
            number + 1
        );
        std::io::stdout()
            .flush()
            .context("cannot write to the line")?;
        if verdict == 0 {
            verdict = status;
        }
    }
    Ok(verdict)
}

fn start(line: &str) -> Result<Child> {
    let parts = parse(line)?;
    let mut command = if parts.terminal {
        let mut command = Command::new("/bin/busybox");
        command.args(["setsid", "-c", parts.program]);
        command.stdin(File::open(LINE).with_context(|| format!("cannot open {LINE}"))?);
        command
    } else {
        let mut command = Command::new(parts.program);
        command.stdin(Stdio::null());
        command
    };
    let home = "/tmp";
    let folder = parts.variables.iter().find(|(name, _)| *name == "PWD");
    let folder = folder.map_or(home, |(_, folder)| folder);
    command
        .args(parts.arguments)
        .env("PATH", PATH)
        .env("HOME", home)
        .envs(parts.variables)
        .current_dir(folder);
    command
        .spawn()
        .with_context(|| format!("cannot start {}", parts.program))
}

/// A line of the job, taken apart.
#[derive(Debug, PartialEq)]
struct Parts<'a> {
    terminal: bool,
    variables: Vec<(&'a str, &'a str)>,
    program: &'a str,
    arguments: Vec<&'a str>,
}

fn parse(line: &str) -> Result<Parts<'_>> {
    let mut fields = line.split('\t').peekable();
    let terminal = fields.next_if_eq(&"!terminal").is_some();
    let mut variables = Vec::new();
    while let Some(pair) = fields.peek().and_then(|field| field.split_once('=')) {
        variables.push(pair);
        fields.next();
    }
    let Some(program) = fields.next().filter(|program| !program.is_empty()) else {
        bail!("the line {line:?} of {JOB} names no program");
    };
    Ok(Parts {
        terminal,
        variables,
        program,
        arguments: fields.collect(),
    })
}

/// Waits for the child, and meanwhile for whatever orphans fall to PID 1. A death by a signal is
/// told as a shell does: 128 and the signal's number.
fn wait(child: &Child) -> Result<i32> {
    let wanted = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == wanted => return Ok(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == wanted => {
                println!("killed by {signal}");
                return Ok(128 + signal as i32);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the command"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time a command took is for a person"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_before_the_program() {
        let line = "WAGGLE_BIN=/bin/waggle\tRUST_BACKTRACE=1\tscenario\t--name=a b\tx=y";
        assert_eq!(
            parse(line).unwrap(),
            Parts {
                terminal: false,
                variables: vec![("WAGGLE_BIN", "/bin/waggle"), ("RUST_BACKTRACE", "1")],
                program: "scenario",
                arguments: vec!["--name=a b", "x=y"],
            }
        );
    }

    #[test]
    fn terminal_is_asked_for_by_a_word_in_front() {
        let parts = parse("!terminal\tA=b\tsh").unwrap();
        assert!(parts.terminal);
        assert_eq!((parts.variables, parts.program), (vec![("A", "b")], "sh"));
    }

    #[test]
    fn line_without_a_program_is_refused() {
        assert!(parse("").is_err());
        assert!(parse("A=b").is_err());
    }
}
