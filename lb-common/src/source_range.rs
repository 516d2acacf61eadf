//! Who may dial the load balancer's addresses of a service (`loadBalancerSourceRanges`).
use crate::{family::IpFamily, service::ServiceId};

/// What the bits of a key of `SOURCE_RANGES` are, the most significant ones first: its prefix counts from the service on,
/// so that each service has prefixes of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange<F: IpFamily> {
    /// The service.
    pub service_id: ServiceId,
    /// The client's address, or how it begins.
    pub address: F::WireAddress,
}

impl<F: IpFamily> SourceRange<F> {
    /// How many bits of the key are the service.
    pub const SERVICE_BITS: u32 = ServiceId::BITS;
    /// How many bits the key of a single client has.
    #[expect(clippy::cast_possible_truncation, reason = "20 bytes at most")]
    pub const ALL_BITS: u32 = 8 * size_of::<Self>() as u32;
}
