//! What a program has at hand beside the packet: its maps, the time, and the memory it works in.
pub mod clock;
pub mod scratch;
pub mod tables;
