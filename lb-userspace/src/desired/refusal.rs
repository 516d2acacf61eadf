//! Why a Service is not served, or not as it wants to be.
use crate::{
    maps::MapName,
    model::{ServiceName, Warning},
};

/// What a Service asked for and did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The map that has no room for it.
    pub map: MapName,
    /// How many entries more it needs.
    pub needed: usize,
    /// How many there are.
    pub free: usize,
    /// An earlier state of the Service is still served.
    pub keeps_earlier: bool,
}

impl Refusal {
    /// The refusal in words.
    pub fn warning(&self, service: &ServiceName) -> Warning {
        let served = if self.keeps_earlier {
            "its earlier state is still served, without the endpoints that have left"
        } else {
            "none of it is served"
        };
        Warning::new(
            format!("Service {service}"),
            format!(
                "needs {} more entries in the map {}, which has room for {}; {served}",
                self.needed, self.map, self.free
            ),
            "give it fewer endpoints or ports, or remove other Services; it is tried again when room is made",
        )
    }
}
