//! The attach points: each turns its context into a packet or a call, asks the library, and turns the verdict into
//! what the kernel understands.
#![expect(unsafe_code, reason = "contexts, maps and helpers are raw pointers")]
#![expect(
    unreachable_pub,
    reason = "the attribute macros export what is `pub`; the crate is a program"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the kernel's C types"
)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a field behind a raw pointer counts as two operations"
)]

mod ageing;
mod environment;
mod flow_pointer;
mod maps;
mod report;
mod skb_packet;
mod socket;
mod subprograms;
mod tc;

/// The kernel lends some helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
