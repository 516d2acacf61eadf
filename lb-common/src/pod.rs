//! Plain old data for types that are generic over the IP family: the crate's only unsafe code.
#![expect(
    unsafe_code,
    reason = "Pod is a layout promise; the macro proves it at compile time"
)]

use bytemuck::{Pod, Zeroable};

use crate::{
    affinity::AffinityKey,
    backend::BackendEntry,
    device::DeviceNetwork,
    family::{V4, V6},
    flow::FlowEntry,
    fragment::{FragmentEntry, FragmentKey},
    frontend::FrontendKey,
    networks::{FamilyNetworks, Prefix},
    socket_flow::{SocketFlowEntry, SocketFlowKey},
    source_range::SourceRange,
    tuple::Tuple,
};

/// Implements `Zeroable` and `Pod` for a type in both families.
///
/// Having the impl guarantees that the type is the plain sequence of its fields: the destructuring names every field,
/// each field is required to be `Pod`, and their sizes must add up to the type's size, so there is no padding.
macro_rules! plain_old_data {
    ($name:ident { $($field:ident),+ } sizes $v4:literal, $v6:literal) => {
        plain_old_data!(@family $name, V4, $v4, $($field),+);
        plain_old_data!(@family $name, V6, $v6, $($field),+);
    };
    (@family $name:ident, $family:ident, $size:literal, $($field:ident),+) => {
        const _: () = {
            const fn size_if_pod<T: Pod>(_: &T) -> usize {
                size_of::<T>()
            }
            const fn sum_of_fields(value: &$name<$family>) -> usize {
                let $name { $($field),+ } = value;
                0 $(+ size_if_pod($field))+
            }
            // SAFETY: only a value to measure; every field is Pod (`size_if_pod` demands it), so zero bytes are one.
            const ZERO: $name<$family> = unsafe { core::mem::zeroed() };
            assert!(size_of::<$name<$family>>() == $size, "a size nobody meant");
            assert!(sum_of_fields(&ZERO) == $size, "padding");
        };
        // SAFETY: all fields are Pod and there is no padding: both asserted above.
        unsafe impl Zeroable for $name<$family> {}
        // SAFETY: as above.
        unsafe impl Pod for $name<$family> {}
    };
}

plain_old_data!(Tuple {
    source, destination, source_port, destination_port, protocol
} sizes 16, 40);
plain_old_data!(FrontendKey { address, port, protocol, scope, padding } sizes 8, 24);
plain_old_data!(BackendEntry {
    address, port, state, spare, generation, service_id, padding
} sizes 16, 32);
plain_old_data!(FlowEntry {
    address, port, side, flags, backend_id, generation, service_id, expected_ack, last_seen, other_port, epoch,
    padding
} sizes 32, 48);
plain_old_data!(FragmentKey { source, destination, identification, protocol } sizes 16, 40);
plain_old_data!(FragmentEntry {
    address, noted, spare_half, spare, flags, spare_word, padding
} sizes 16, 32);
plain_old_data!(SocketFlowKey { cookie, address, port, spare, padding } sizes 16, 32);
plain_old_data!(Prefix { network, mask } sizes 8, 32);
plain_old_data!(FamilyNetworks { pods, around_services, service_prefixes } sizes 48, 192);
plain_old_data!(DeviceNetwork { network, address } sizes 12, 48);
plain_old_data!(SourceRange { service_id, address } sizes 8, 20);
plain_old_data!(AffinityKey { client, service_id, padding } sizes 8, 24);
plain_old_data!(SocketFlowEntry { address, port, spare, padding } sizes 8, 24);
