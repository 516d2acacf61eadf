//! What the test suites stand on.

pub mod control_plane;
