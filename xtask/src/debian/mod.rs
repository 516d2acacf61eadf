//! Debian's packages: the machine's own, and those of other suites that are only unpacked.

pub(crate) mod packages;
mod suite;

pub(crate) use suite::{Suite, unpack};
