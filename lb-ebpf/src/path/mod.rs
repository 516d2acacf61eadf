//! The paths that packets and socket calls take, top to bottom.
mod direct;
pub mod fragments;
pub mod icmp;
pub mod icmp_error;
pub mod icmp_quote;
pub mod look_up;
pub mod masquerade;
pub mod opening;
pub mod origin;
pub mod pipeline;
pub mod reply;
pub mod request;
pub mod socket;
pub mod steps;
pub mod unserved;
