//! The datapath as plain Rust: what happens to a packet, and nothing about where the packet is.
//!
//! ```text
//! packet ─▶ parse ─▶ flow known? ──────────────▶ rewrite ─▶ verdict
//!                        │ no                        ▲
//!                        ▼                           │
//!                    frontend? ─▶ select backend ─▶ remember the flow
//! ```
//!
//! Everything is generic over [`packet::Packet`] (the bytes), [`tables::Tables`] (the maps) and [`clock::Clock`] (time
//! and chance). The kernel programs (`src/hooks`) are one caller; property tests and tools on the host are the other.
//! No helper, no map, no context and no allocation is known here.
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

pub mod challenge;
pub mod checksum;
pub mod clock;
pub mod crc32c;
pub mod headers;
pub mod packet;
pub mod tables;

pub mod parse;
pub mod pipeline;
pub mod rewrite;
pub mod scratch;
pub mod select;

pub mod affinity;
pub mod ageing;
pub mod detour;
pub mod flow;
pub mod fragments;
pub mod goodbye;
pub mod icmp;
pub mod icmp_error;
pub mod lookup;
pub mod masquerade;
pub mod opening;
pub mod reply_path;
pub mod request_path;
pub mod socket_path;
