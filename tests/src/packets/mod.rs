//! Packets: built, generated, dissected, and carried by tun devices and sockets with options.

pub mod dissect;
pub mod generate;
pub mod packet_builder;
pub mod socket_option;
pub mod tun;
