//! Flows: each has an entry for each of its two directions. They are found, made, proven, ended and aged here.
pub mod ageing;
pub mod backend;
pub mod challenge;
pub mod claim;
pub mod find;
pub mod make;
pub mod ports;
pub mod prove;
pub mod teardown;
