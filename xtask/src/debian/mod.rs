//! Debian's packages: the machine's own, and those of other suites that are only unpacked.

mod suite;

pub(crate) use suite::{Suite, unpack};
