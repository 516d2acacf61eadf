//! A slot: one candidate of one service.
use bytemuck::{Pod, Zeroable};

use crate::{backend::BackendId, service::ServiceId};

/// Value of SLOTS.
///
/// The slot names its owner: a reader whose region was handed to another service while it was reading sees a foreign
/// owner and reads the service again, instead of sending a client to a stranger.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct SlotEntry {
    /// Index into BACKENDS.
    pub backend_id: BackendId,
    /// The service this slot belongs to.
    pub service_id: ServiceId,
}
const _: () = assert!(size_of::<SlotEntry>() == 8);
