//! The datapath as plain Rust: what happens to a packet, and nothing about where the packet is.
//!
//! ```text
//! packet ─▶ parse ─▶ flow known? ──────────────▶ rewrite ─▶ verdict
//!                        │ no                        ▲
//!                        ▼                           │
//!                    frontend? ─▶ select backend ─▶ remember the flow
//! ```
//!
//! Everything is generic over [`bytes::packet::Packet`] (the bytes) and [`context::environment::Environment`] (maps, time
//! and chance). The kernel programs (`src/hooks`) are one caller; property tests and
//! tools on the host are the other. No BPF helper, map or context is known here, and nothing is allocated.
//!
//! The folders are layers: each imports from those to its left alone.
//!
//! ```text
//! bytes ◀─ context ◀─ flow ◀─ service ◀─ path ◀─ hooks
//! ```
#![cfg_attr(not(any(test, feature = "memory")), no_std)]
#![warn(missing_docs)]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

pub mod bytes;
pub mod context;
pub mod flow;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
pub mod path;
pub mod service;
