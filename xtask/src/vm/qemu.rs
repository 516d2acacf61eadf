//! QEMU: the command line, the accelerator that works here, and watching a machine to its end.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::console::{Line, Lines, parse};
use super::{Job, Kernel, Outcome, guest};
use crate::{cache, report, workspace};

/// How long a machine on KVM may take to reach its init; it needs one or two seconds. There are
/// hosts on which KVM opens and its guests hang.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// How long a machine may take to reach its init: emulated, on two slow cores, it needs ten seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// How often an emulated machine may fail to reach its init. A kernel patches its own code while it boots, and QEMU's
/// emulation of two processors now and then runs half of such a patch: an exception in the first seconds.
const BOOT_TRIES: u32 = 4;

/// Lines of the console that an error shows.
const LAST_LINES: usize = 30;

/// What runs the machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Accelerator {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Kvm => "on KVM",
            Self::Tcg => "emulated (TCG, for KVM does not work here)",
        }
    }

    fn options(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // QEMU 7.2 emulates CMPXCHG16B wrongly: Linux 6.12 crashed in every second boot. It
            // does without where the processor has none.
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,cx16=off"],
        }
    }
}

/// KVM if a machine on it really reaches its init, else TCG. The answer holds until this machine
/// boots again.
pub(super) fn accelerator(kernel: &Kernel) -> Result<Accelerator> {
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let memory = cache::folder("kvm")?.join("works");
    let remembered = fs::read_to_string(&memory).unwrap_or_default();
    if let Some(works) = remembered.strip_prefix(boot.trim()) {
        return Ok(if works.trim() == "yes" {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        });
    }
    let limit = PROBE_LIMIT.as_secs();
    let works = report::step(&format!("trying KVM (at most {limit} s)"), || {
        Ok(probe(kernel))
    })?;
    let answer = if works { "yes" } else { "no" };
    fs::write(&memory, format!("{} {answer}\n", boot.trim()))
        .with_context(|| format!("cannot write {}", memory.display()))?;
    Ok(if works {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

/// Whether an empty machine on KVM reaches its init and ends.
fn probe(kernel: &Kernel) -> bool {
    let job = Job {
        name: "probe".to_owned(),
        commands: Vec::new(),
        programs: Vec::new(),
        data: Vec::new(),
        time_limit: PROBE_LIMIT,
        is_interactive: false,
        is_probe: true,
    };
    let initramfs = workspace::target().join("vm/probe.cpio");
    let outcome = guest::write(&job, kernel, &initramfs)
        .and_then(|_| boot(&job, kernel, &initramfs, Accelerator::Kvm, &mut |_| ()));
    if let Err(error) = &outcome {
        let text = error.to_string();
        report::note(&format!(
            "it does not: {}",
            text.lines().next().unwrap_or_default()
        ));
    }
    outcome.is_ok_and(|outcome| outcome.verdict == 0)
}

/// Boots a machine and watches it to its end. What the emulation spoils before init, and only that, is tried again.
pub(super) fn boot(
    job: &Job,
    kernel: &Kernel,
    initramfs: &Path,
    accelerator: Accelerator,
    said: &mut dyn FnMut(&Line<'_>),
) -> Result<Outcome> {
    let mut left = match accelerator {
        Accelerator::Kvm => 1,
        Accelerator::Tcg => BOOT_TRIES,
    };
    loop {
        left -= 1;
        let mut is_up = false;
        let mut listen = |line: &Line<'_>| {
            is_up |= matches!(line, Line::ReachedInit(_));
            said(line);
        };
        match boot_once(job, kernel, initramfs, accelerator, &mut listen) {
            Err(_) if !is_up && left > 0 => {
                report::note("the emulated kernel did not get as far as init; once more");
            }
            ended => return ended,
        }
    }
}

fn boot_once(
    job: &Job,
    kernel: &Kernel,
    initramfs: &Path,
    accelerator: Accelerator,
    said: &mut dyn FnMut(&Line<'_>),
) -> Result<Outcome> {
    let kernel_log = workspace::target().join(format!("vm/{}.kernel.log", job.name));
    let console_log = workspace::target().join(format!("vm/{}.console.log", job.name));
    let mut command = command(kernel, initramfs, accelerator, &kernel_log);
    command.stdout(Stdio::piped());
    if job.is_probe {
        command.stderr(Stdio::null());
    }
    command.stdin(if job.is_interactive {
        Stdio::inherit()
    } else {
        Stdio::null()
    });
    let child = command.spawn().context("cannot start qemu-system-x86_64")?;
    let machine = Machine {
        child,
        kernel_log,
        console_log,
    };
    machine.watch(job, said)
}

fn command(kernel: &Kernel, initramfs: &Path, accelerator: Accelerator, log: &Path) -> Command {
    // A machine does not outlive us, however we end.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(accelerator.options())
        .args(["-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-smp", "2", "-m", "3G", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // The kernel has the first line to itself; a panic ends the machine.
        .args(["-append", "console=ttyS0 loglevel=6 panic=-1 oops=panic"])
        .arg("-chardev")
        .arg(format!("file,id=kernel,path={}", log.display()))
        .args(["-serial", "chardev:kernel"])
        .args(["-chardev", "stdio,id=commands,signal=off", "-serial", "chardev:commands"]);
    command
}

/// A machine that runs, and the files that keep what it said.
struct Machine {
    child: Child,
    kernel_log: PathBuf,
    console_log: PathBuf,
}

impl Machine {
    fn watch(mut self, job: &Job, said: &mut dyn FnMut(&Line<'_>)) -> Result<Outcome> {
        let begun = report::now();
        let mut time_limit = job.time_limit.min(BOOT_LIMIT);
        let pieces = self.pieces()?;
        let mut log = fs::File::create(&self.console_log)
            .with_context(|| format!("cannot write {}", self.console_log.display()))?;
        let mut lines = Lines::default();
        let mut last = VecDeque::new();
        let mut verdict = None;
        loop {
            let left = (begun + time_limit).saturating_duration_since(report::now());
            let piece = match pieces.recv_timeout(left) {
                Ok(piece) => piece,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.end();
                    let limit = report::seconds(time_limit);
                    bail!(
                        "the machine was not done within {limit}{}",
                        self.traces(&last)
                    );
                }
            };
            log.write_all(&piece)
                .context("cannot write the console's log")?;
            if job.is_interactive {
                let mut terminal = std::io::stdout();
                terminal.write_all(&piece).and_then(|()| terminal.flush())?;
            }
            for line in lines.push(&piece) {
                let understood = parse(&line);
                match understood {
                    Line::Verdict(status) => verdict = Some(status),
                    Line::ReachedInit(_) => time_limit = job.time_limit,
                    Line::Begins(_) | Line::Exited(..) | Line::Notice(_) | Line::Text(_) => {}
                }
                said(&understood);
                last.push_back(line);
                if last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
        }
        let status = self.child.wait().context("cannot wait for QEMU")?;
        match verdict {
            Some(verdict) => Ok(Outcome { verdict }),
            None => bail!(
                "the machine ended without a verdict ({status}){}",
                self.traces(&last)
            ),
        }
    }

    /// What QEMU writes, read by a thread of its own so that waiting has a time limit.
    fn pieces(&mut self) -> Result<mpsc::Receiver<Vec<u8>>> {
        let mut output = self.child.stdout.take().context("QEMU has no output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = output.read(&mut buffer) {
                let piece = buffer.get(..length).unwrap_or_default();
                if length == 0 || sender.send(piece.to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }

    fn end(&mut self) {
        if self.child.kill().is_ok() {
            // Its status is of no interest: it was ended.
            drop(self.child.wait());
        }
    }

    /// The last lines of both consoles, for an error.
    fn traces(&self, last: &VecDeque<String>) -> String {
        let kernel = fs::read(&self.kernel_log).unwrap_or_default();
        let kernel = String::from_utf8_lossy(&kernel);
        let kernel: Vec<&str> = kernel.lines().collect();
        let kernel = &kernel[kernel.len().saturating_sub(LAST_LINES)..];
        let commands: Vec<&str> = last.iter().map(String::as_str).collect();
        format!(
            "\n--- last lines of the commands (all in {})\n{}\n--- last lines of the kernel (all \
             in {})\n{}",
            self.console_log.display(),
            commands.join("\n"),
            self.kernel_log.display(),
            kernel.join("\n"),
        )
    }
}
