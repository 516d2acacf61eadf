//! The world of the datapath in plain memory: a packet, a clock, entries of flow tables. `waggle trace`, tests and
//! benches run the datapath in it; the feature `memory` brings it.
pub mod clock;
pub mod flow;
pub mod packet;
mod steps;
