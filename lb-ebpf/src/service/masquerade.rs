//! The node's address as the source: a client that is its own backend must not see its own address come in.
use lb_common::{DeviceEntry, DropReason, FlowFlags, FlowSide, Port, Tuple, V4, V6};

use crate::{
    bytes::headers::Wire,
    context::{
        clock::Instant,
        environment::{Environment, FlowTable, StoreError},
        scratch::Entries,
    },
    flow::{
        find::find,
        ports::{PORT_TRIES, is_ours, port_from_range},
    },
};

/// A family's masquerade address in a [`DeviceEntry`].
pub trait MasqueradeAddress: Wire {
    /// The address, or `None` where neither the device nor the node has one.
    fn masquerade_address(device: &DeviceEntry) -> Option<Self::Address>;
}
impl MasqueradeAddress for V4 {
    #[inline(always)]
    fn masquerade_address(device: &DeviceEntry) -> Option<Self::Address> {
        (device.masquerade_v4.0 != [0; 1]).then_some(device.masquerade_v4)
    }
}
impl MasqueradeAddress for V6 {
    #[inline(always)]
    fn masquerade_address(device: &DeviceEntry) -> Option<Self::Address> {
        (device.masquerade_v6.0 != [0; 4]).then_some(device.masquerade_v6)
    }
}

/// Notes on ingress that the request `key`, on its way to the backend of `entries.own`, wants a masquerade on egress.
/// Which address, only the egress device can tell: until then the entry's port is zero.
#[inline(always)]
pub fn request<F: Wire, E: Environment<F>>(
    env: &mut E,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
    now: Instant,
) -> Result<(), DropReason> {
    entries.other_key = entries.own.translated(key);
    if find(env, &entries.other_key).is_some() {
        return Ok(());
    }
    entries.other = entries.own;
    let wanted = &mut entries.other;
    wanted.address = key.source;
    wanted.port = Port::ZERO;
    wanted.other_port = Port::ZERO;
    wanted.side = FlowSide::Source.byte();
    wanted.flags = FlowFlags::REQUEST.with(FlowFlags::MASQUERADE);
    wanted.last_seen = now.jiffies;
    match env.insert_flow(FlowTable::Opening, &entries.other_key, wanted) {
        Ok(()) | Err(StoreError::Exists) => Ok(()),
        Err(StoreError::Refused) => Err(DropReason::FlowNotStored),
    }
}

/// Chooses address and port on the egress device, and remembers both directions, the reply's first. Afterwards
/// `entries.own` has them.
#[inline(always)]
pub fn assign<F, E>(
    env: &mut E,
    key: &Tuple<F>,
    entries: &mut Entries<F>,
    interface: u32,
    now: Instant,
) -> Result<(), DropReason>
where
    F: MasqueradeAddress,
    E: Environment<F>,
{
    let address = env
        .device(interface)
        .and_then(|device| F::masquerade_address(&device))
        .ok_or(DropReason::NoMasqueradeAddress)?;
    entries.own.address = address;
    entries.own.last_seen = now.jiffies;
    entries.other = entries.own;
    entries.other.address = key.source;
    entries.other.port = key.source_port;
    entries.other.side = FlowSide::Destination.byte();
    entries.other.flags = FlowFlags::MASQUERADE;
    let random = env.random();
    for attempt in 0..=PORT_TRIES {
        // The client's own port, if it is one of ours: from the others the node's own connections to the same backend
        // may come, and their replies would be taken for this flow's.
        entries.own.port = if attempt == 0 && is_ours(key.source_port) {
            key.source_port
        } else {
            port_from_range(random.wrapping_add(attempt))
        };
        entries.other_key = entries.own.other_half(key);
        env.mark_unlisted_flow(&address);
        match env.insert_flow(FlowTable::Opening, &entries.other_key, &entries.other) {
            // Looked for afterwards: flows move from the one table to the other only.
            Ok(()) if env.flow(FlowTable::Proven, &entries.other_key).is_some() => {
                env.remove_flow(FlowTable::Opening, &entries.other_key);
            }
            Err(StoreError::Exists) => {}
            Err(StoreError::Refused) => return Err(DropReason::FlowNotStored),
            Ok(()) => return remember(env, key, entries),
        }
    }
    Err(DropReason::NoMasqueradePort)
}

/// Replaces the wish for a masquerade by the masquerade.
#[inline(always)]
fn remember<F: Wire, E: Environment<F>>(
    env: &mut E,
    key: &Tuple<F>,
    entries: &Entries<F>,
) -> Result<(), DropReason> {
    env.replace_flow(FlowTable::Opening, key, &entries.own)
        .map_err(|_refused| {
            env.remove_flow(FlowTable::Opening, &entries.other_key);
            DropReason::FlowNotStored
        })
}
