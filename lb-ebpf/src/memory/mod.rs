//! The world of the datapath in plain memory: a packet, a clock, tables. `waggle trace`, tests and
//! benches run the datapath in it; the feature `memory` brings it.
pub mod clock;
pub mod flows;
pub mod instrument;
pub mod packet;
mod steps;
pub mod tables;
