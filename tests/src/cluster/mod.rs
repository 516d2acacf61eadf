//! A cluster in network namespaces: its nodes, pods, objects and agents.

pub mod agent_process;
pub mod agent_without_services;
pub mod checks;
pub mod cluster_scenario;
pub mod cluster_state;
pub mod expect;
pub mod kubernetes_cluster;
pub mod nginx;
pub mod printed;
pub mod questions;
pub mod scenario;
pub mod service_cluster;
pub mod topology;
