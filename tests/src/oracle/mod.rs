//! The oracles: independent models of the datapath and of the Kubernetes rules, and random input for them.

pub mod duplicated_deliveries;
pub mod host_datapath;
pub mod kubernetes_rules;
pub mod memory_tables;
pub mod random_cluster;
pub mod reference;
