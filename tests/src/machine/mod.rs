//! The machine under test: namespaces, processes, folders, kernel programs, and what a test requires.

pub mod bench;
pub mod bpf_link;
pub mod budget;
pub mod kernel_program;
pub mod netns;
pub mod process;
pub mod require;
pub mod scratch;
