//! Clients, servers and loads that send traffic to Services.

pub mod client;
pub mod download;
pub mod load;
pub mod one_port;
pub mod udp;
