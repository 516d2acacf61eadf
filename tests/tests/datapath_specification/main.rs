//! The datapath's specification as tables of cases, a file for each part of it.
#![expect(
    clippy::expect_used,
    reason = "helpers of tests: what is missing fails the test"
)]

mod admission;
mod affinity;
mod choice;
mod direct;
mod fixture;
mod flows;
mod foreign_frames;
mod fragments;
mod frames;
mod icmp_errors;
mod icmp_talk;
mod masquerade;
mod masquerade_kept;
mod masquerade_ports;
mod node_device;
mod policy_routing;
mod proof;
mod races;
mod redirects;
mod reply_tuple;
mod sctp;
mod senders;
mod socket;
mod source_port;
mod talk;
mod udp_follows;
mod udp_share;
mod untouched;
