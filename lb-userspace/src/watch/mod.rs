//! Where events come from: the only input of the agent.
pub mod kubernetes;
pub mod manifests;
