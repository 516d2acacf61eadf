//! The project's commands. One file per command; below them what they share.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "these commands talk to a person at a terminal"
)]

pub mod bench;
pub mod check;
pub mod control_plane;
pub mod ebpf;
pub mod report;
pub mod run;
pub mod test;

mod cache;
mod debian;
mod process;
mod rust_source;
mod toolchain;
mod vm;
mod workspace;
