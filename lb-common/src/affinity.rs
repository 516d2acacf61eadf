//! Which backend a client of a service was given last (`sessionAffinity: ClientIP`).
use bytemuck::{Pod, Zeroable};

use crate::{backend::BackendId, family::IpFamily, service::ServiceId};

/// Key of `AFFINITY`: a client of a service, whichever of its frontends it dials.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey<F: IpFamily> {
    /// The client's address. All processes of the node are one client, with the unspecified address: which of the
    /// node's addresses a socket will get is not known when it dials.
    pub client: F::Address,
    /// The service.
    pub service_id: ServiceId,
    /// Always zero: the key is compared byte by byte.
    pub padding: F::Padding,
}

impl<F: IpFamily> AffinityKey<F> {
    /// This client of this service.
    #[inline(always)]
    pub fn new(client: F::Address, service_id: ServiceId) -> Self {
        Self {
            client,
            service_id,
            padding: F::Padding::default(),
        }
    }
}

/// Value of `AFFINITY`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct AffinityEntry {
    /// The backend that the client was given.
    pub backend_id: BackendId,
    /// The backend's generation then: the id may be somebody else's by now.
    pub generation: u32,
    /// When the client last opened a flow (jiffies).
    pub last_opened: u32,
    /// Zero.
    pub spare: u32,
}
