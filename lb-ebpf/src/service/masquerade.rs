//! The node's address as the source: a client that is its own backend must not see its own address come in.
use lb_common::{
    DEVICE_NETWORKS, DeviceEntry, DeviceNetwork, DropReason, FlowEntry, FlowFlags, FlowSide, Port,
    Tuple, V4, V6,
};

use crate::{
    bytes::{
        headers::Wire,
        packet::{Forwarding, Packet},
    },
    context::{
        Context,
        clock::Instant,
        environment::{Environment, FlowHandle as _, FlowTable, StoreError},
        scratch::{Entries, FamilyMemory},
    },
    flow::{
        find::find,
        ports::{FRESH_TRIES, is_ours, port_from_range},
        teardown::{forget, is_closed},
    },
};

/// A family's masquerade address in a [`DeviceEntry`].
pub trait MasqueradeAddress: Wire {
    /// The address, or `None` where neither the device nor the node has one.
    fn masquerade_address(device: &DeviceEntry) -> Option<Self::Address>;
    /// The networks that the device is in, if there are several.
    fn networks(device: &DeviceEntry) -> &[DeviceNetwork<Self>; DEVICE_NETWORKS];
}
impl MasqueradeAddress for V4 {
    #[inline(always)]
    fn masquerade_address(device: &DeviceEntry) -> Option<Self::Address> {
        (device.masquerade_v4.0 != [0; 1]).then_some(device.masquerade_v4)
    }
    #[inline(always)]
    fn networks(device: &DeviceEntry) -> &[DeviceNetwork<Self>; DEVICE_NETWORKS] {
        &device.networks_v4
    }
}
impl MasqueradeAddress for V6 {
    #[inline(always)]
    fn masquerade_address(device: &DeviceEntry) -> Option<Self::Address> {
        (device.masquerade_v6.0 != [0; 4]).then_some(device.masquerade_v6)
    }
    #[inline(always)]
    fn networks(device: &DeviceEntry) -> &[DeviceNetwork<Self>; DEVICE_NETWORKS] {
        &device.networks_v6
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
    wanted.flags = FlowFlags::REQUEST.with(FlowFlags(entries.own.flags.0 & FlowFlags::NODE.0));
    wanted.last_seen = now.jiffies;
    match env.insert_flow(FlowTable::Opening, &entries.other_key, wanted) {
        Ok(()) | Err(StoreError::Exists) => Ok(()),
        Err(StoreError::Refused) => Err(DropReason::FlowNotStored),
    }
}

/// Puts the masquerade address of the egress device into `entries.own`.
#[inline(always)]
pub fn begin<F, E>(env: &E, entries: &mut Entries<F>, interface: u32) -> Result<(), DropReason>
where
    F: MasqueradeAddress,
    E: Environment<F>,
{
    let address = env
        .device(interface)
        .and_then(F::masquerade_address)
        .ok_or(DropReason::NoMasqueradeAddress)?;
    entries.own.address = address;
    Ok(())
}

/// Where the egress device is in several networks: puts its address in the next hop's network into `entries.own`, as the
/// kernel's MASQUERADE does (`inet_select_addr`). The first address stays if no network has the next hop.
///
/// # Errors
/// None.
#[inline(always)]
pub fn select_address<F, P, E>(cx: &mut Context<'_, F, P, E>) -> Result<(), DropReason>
where
    F: MasqueradeAddress,
    P: Packet + Forwarding<F>,
    E: Environment<F>,
{
    let (parsed, entries) = cx.scratch.parts();
    let Some(device) = cx.env.device(cx.packet.interface()) else {
        return Ok(());
    };
    let networks = F::networks(device);
    if networks[0].address == F::UNSPECIFIED {
        return Ok(());
    }
    let next_hop = cx
        .packet
        .next_hop(parsed.tuple.source, parsed.tuple.destination);
    let mut networks = networks.iter();
    if let Some(found) = networks.find(|it| it.network.contains(&next_hop)) {
        entries.own.address = found.address;
    }
    Ok(())
}

/// Tries the port of `entries.attempt` with the address of `entries.own`. Stores the replies' half, unless a flow in use or
/// a socket of the node has its tuple. From the thirteenth try on, a closed flow is removed for it.
#[inline(always)]
pub fn take_port<F, P, E>(
    packet: &mut P,
    scratch: &mut FamilyMemory<'_, F>,
    env: &mut E,
) -> Result<(), DropReason>
where
    F: Wire,
    P: Forwarding<F>,
    E: Environment<F>,
{
    let now = env.now();
    let (parsed, entries) = scratch.parts();
    let key = &parsed.tuple;
    // The client's own port, if it is within the range of masquerade ports.
    entries.own.port = if entries.attempt == 0 && is_ours(key.source_port) {
        key.source_port
    } else {
        port_from_range(entries.random.wrapping_add(entries.attempt))
    };
    entries.other_key = entries.own.other_half(key);
    if let Some(found) = find(env, &entries.other_key) {
        let owner = found.handle.entry();
        if entries.attempt < FRESH_TRIES || !remove_closed(env, &entries.other_key, &owner) {
            return Err(DropReason::NoMasqueradePort);
        }
    }
    if packet.is_for_socket(&entries.other_key) {
        return Err(DropReason::NoMasqueradePort);
    }
    entries.own.last_seen = now.jiffies;
    entries.other = entries.own;
    entries.other.address = key.source;
    entries.other.port = key.source_port;
    entries.other.side = FlowSide::Destination.byte();
    entries.other.flags = FlowFlags(entries.own.flags.0 & FlowFlags::NODE.0);
    env.mark_unlisted_flow(&entries.own.address);
    match env.insert_flow(FlowTable::Opening, &entries.other_key, &entries.other) {
        // Looked for afterwards: flows move from the one table to the other only.
        Ok(()) if env.flow(FlowTable::Proven, &entries.other_key).is_some() => {
            env.remove_flow(FlowTable::Opening, &entries.other_key);
            Err(DropReason::NoMasqueradePort)
        }
        Ok(()) => Ok(()),
        Err(StoreError::Exists) => Err(DropReason::NoMasqueradePort),
        Err(StoreError::Refused) => Err(DropReason::FlowNotStored),
    }
}

/// Whether an entry for packets that enter is the replies' half of a masquerade.
#[inline(always)]
pub fn is_replies<F: Wire>(entry: &FlowEntry<F>) -> bool {
    entry.flags.has(FlowFlags::MASQUERADE) && !entry.flags.has(FlowFlags::REQUEST)
}

/// Removes the masquerade whose replies have this tuple, with its flow, if the flow is closed; returns whether it did. The
/// flow is removed too, so that late packets of its client do not leave without the masquerade.
#[inline(always)]
pub fn remove_closed<F: Wire, E: Environment<F>>(
    env: &mut E,
    back_key: &Tuple<F>,
    owner: &FlowEntry<F>,
) -> bool {
    let request_key = owner.other_half(back_key);
    if !is_replies(owner) || !is_closed(env, owner.flags, &request_key) {
        return false;
    }
    forget(env, back_key, &request_key);
    let reply_key = request_key.reversed();
    if let Some(found) = find(env, &reply_key) {
        let other_key = found.handle.entry().other_half(&reply_key);
        forget(env, &reply_key, &other_key);
    }
    true
}

/// Stores the request's half of a masquerade whose replies' half stands at `entries.other_key`.
#[inline(always)]
pub fn remember<F: Wire, E: Environment<F>>(
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
