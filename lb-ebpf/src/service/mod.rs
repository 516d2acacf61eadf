//! Services: their frontends, the choice of a backend, session affinity, and the masquerade of their clients.
pub mod affinity;
pub mod frontends;
pub mod masquerade;
pub mod select;
