//! Arbitrary traffic for an arbitrary small cluster: few addresses and few ports, so that packets meet flows.
pub mod cluster;
pub mod complaint;
pub mod frame;

use lb_common::BackendState;
use proptest::{collection::vec, prelude::*, sample::select};

pub use self::{
    cluster::{Cluster, Hook},
    complaint::Complaint,
    frame::{Fragment, Shape, Way, conversation},
};
use crate::packets::dissect::flag::{ACK, FIN, PSH, RST, SYN};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A packet as it may come from anywhere.
    Packet(Hook, Way, Shape),
    /// An ICMP message about a packet.
    Complaint(Complaint),
    /// A datagram in two pieces; the first comes first or last.
    Pieces(Way, Shape, bool),
    /// The stack hands a packet that was seen lately (counted from the newest) to a further device.
    Onward(usize, Hook),
    /// Somebody answers a packet that was seen lately, with these TCP control bits.
    Answer(usize, Hook, u8),
    /// A client and a pod talk as they would through a real node, for so many packets.
    Conversation(Way, usize),
    /// Bytes without sense.
    Garbage(Hook, Vec<u8>),
    /// Seconds pass.
    Advance(u32),
    /// A backend leaves its service, and its pod perhaps this world.
    Leave(usize, BackendState),
    /// A backend is a member again.
    Return(usize),
    /// A backend's id is given to somebody else.
    Replace(usize),
    /// The frontend of one service is given to another, or removed.
    HandOver(usize, usize),
    /// The LRU throws an entry out of `OPENING_FLOWS`.
    Evict(usize),
    /// FLOWS has room for so many entries.
    Room(usize),
}

/// An unremarkable packet, with a strange one now and then.
pub fn shape() -> impl Strategy<Value = Shape> {
    let flags = select(vec![
        SYN,
        SYN,
        SYN,
        SYN,
        ACK,
        ACK,
        ACK,
        ACK | PSH,
        SYN | ACK,
        SYN | ACK,
        FIN | ACK,
        FIN | ACK,
        RST,
        RST | ACK,
        0,
        SYN | FIN,
        SYN | RST,
    ]);
    let link = (any::<bool>(), 0..4usize);
    let numbers = (select(vec![0, 1, u32::MAX]), 0..3u32);
    let payload = vec(any::<u8>(), 0..40);
    let odd = (
        prop_oneof![6 => Just(0), 1 => 0..40usize],
        prop_oneof![4 => Just(vec![]), 1 => vec((select(vec![0, 43, 44, 51, 60, 135]), 8..40usize), 1..8)],
        prop_oneof![
            12 => Just(Fragment::None), 2 => Just(Fragment::First),
            2 => Just(Fragment::Later), 1 => Just(Fragment::Atomic)
        ],
        prop_oneof![6 => Just(None), 1 => (0..120usize).prop_map(Some)],
        prop_oneof![12 => Just(None), 1 => (0..120usize).prop_map(Some)],
        prop_oneof![12 => Just(None), 1 => (0..120usize, 1..=255u8).prop_map(Some)],
        prop_oneof![4 => Just(false), 1 => Just(true)],
        prop_oneof![4 => Just(0), 1 => 0..10usize],
    );
    (link, flags, numbers, payload, odd).prop_map(|(link, flags, numbers, payload, odd)| Shape {
        is_ethernet: link.0,
        vlans: link.1.saturating_sub(1).min(if link.0 { 3 } else { 0 }),
        flags,
        sequence: numbers.0,
        acknowledgement: numbers.1,
        payload,
        options: odd.0,
        extensions: odd.1,
        fragment: odd.2,
        linear: odd.3,
        cut: odd.4,
        flip: odd.5,
        without_checksum: odd.6,
        padding: odd.7,
    })
}

/// Who sends what to whom.
pub fn way() -> impl Strategy<Value = Way> {
    let service = 0..cluster::SERVICES.len();
    let backend = 0..cluster::PODS;
    let client = 0..cluster::CLIENTS;
    let port = 0..3u16;
    prop_oneof![
        8 => (service.clone(), client.clone(), port.clone())
            .prop_map(|(service, client, port)| Way::Request { service, client, port }),
        4 => (service.clone(), backend.clone(), client.clone(), port.clone())
            .prop_map(|(service, pod, client, port)| Way::Reply { service, pod, client, port }),
        3 => (service.clone(), backend.clone(), client.clone(), port.clone())
            .prop_map(|(service, pod, client, port)| Way::Direct { service, pod, client, port }),
        3 => (service.clone(), backend, port.clone())
            .prop_map(|(service, pod, port)| Way::ToNode { service, pod, port }),
        1 => (service, client, port).prop_map(|(service, client, port)| Way::WrongPort { service, client, port }),
    ]
}

/// About a packet of a conversation that has just begun, to be seen where that packet's answer would be, or elsewhere.
fn a_complaint() -> impl Strategy<Value = Event> {
    let parts = (any::<bool>(), any::<bool>(), any::<bool>(), 0..6usize);
    let hook = select(vec![Hook::Ingress, Hook::Egress]);
    let quoted = prop_oneof![2 => Just(None), 1 => (20..100usize).prop_map(Some)];
    (way(), shape(), parts, hook, quoted).prop_map(|(way, shape, parts, hook, quoted)| {
        Event::Complaint(Complaint {
            hook,
            way,
            is_turned: parts.0,
            by_router: parts.1,
            is_ethernet: parts.2,
            kind: parts.3,
            quoted: Shape {
                cut: quoted,
                ..shape
            },
        })
    })
}

/// From the opening packet to some place in the conversation.
fn a_conversation() -> impl Strategy<Value = Event> {
    let parts = (
        0..cluster::SERVICES.len(),
        0..cluster::CLIENTS,
        0..3u16,
        1..8usize,
    );
    parts.prop_map(|(service, client, port, packets)| {
        let way = Way::Request {
            service,
            client,
            port,
        };
        Event::Conversation(way, packets)
    })
}

/// A frontend goes to another service, is removed, or comes back.
fn a_hand_over() -> impl Strategy<Value = Event> {
    let services = (0..cluster::SERVICES.len(), 0..cluster::SERVICES.len());
    (services, any::<bool>())
        .prop_map(|((of, to), comes_back)| Event::HandOver(of, if comes_back { of } else { to }))
}

/// One event.
pub fn event() -> impl Strategy<Value = Event> {
    let hook = || select(vec![Hook::Ingress, Hook::Egress]);
    let likely = (way(), shape()).prop_map(|(way, shape)| Event::Packet(way.hook(), way, shape));
    let anywhere =
        (hook(), way(), shape()).prop_map(|(hook, way, shape)| Event::Packet(hook, way, shape));
    let backend = 0..cluster::BACKENDS;
    prop_oneof![
        30 => likely,
        3 => anywhere,
        8 => a_conversation(),
        16 => a_complaint(),
        6 => (way(), shape(), any::<bool>())
            .prop_map(|(way, shape, in_order)| Event::Pieces(way, shape, in_order)),
        8 => (0..4usize, hook()).prop_map(|(nth, hook)| Event::Onward(nth, hook)),
        16 => (0..4usize, hook(), select(vec![ACK, ACK, SYN | ACK, FIN | ACK, RST]))
            .prop_map(|(nth, hook, flags)| Event::Answer(nth, hook, flags)),
        1 => (hook(), vec(any::<u8>(), 0..100)).prop_map(|(hook, bytes)| Event::Garbage(hook, bytes)),
        2 => select(vec![0, 1, 2, 59, 61, 100]).prop_map(Event::Advance),
        3 => (backend.clone(), select(vec![BackendState::Draining, BackendState::Left, BackendState::Gone]))
            .prop_map(|(backend, state)| Event::Leave(backend, state)),
        2 => backend.clone().prop_map(Event::Return),
        1 => backend.prop_map(Event::Replace),
        2 => a_hand_over(),
        2 => (0..20usize).prop_map(Event::Evict),
        1 => select(vec![0, 2, 1000]).prop_map(Event::Room),
    ]
}

/// A client and a pod talk, all pods are gone for good, and a while later the client goes on; then there are pods again.
fn an_orphan() -> impl Strategy<Value = Vec<Event>> {
    let parts = (
        0..cluster::SERVICES.len(),
        0..cluster::CLIENTS,
        0..3u16,
        2..8usize,
    );
    let seconds = select(vec![0, 1, 2, 2, 61]);
    let flags = select(vec![ACK, ACK, ACK | PSH, FIN | ACK, RST, SYN]);
    (parts, seconds, flags).prop_map(|((service, client, port, packets), seconds, flags)| {
        let way = Way::Request {
            service,
            client,
            port,
        };
        let of_all = |change: fn(usize) -> Event| (0..cluster::BACKENDS).map(change);
        let mut story = vec![Event::Conversation(way, packets)];
        story.extend(of_all(|backend| Event::Leave(backend, BackendState::Gone)));
        story.push(Event::Advance(seconds));
        story.push(Event::Packet(way.hook(), way, Shape::plain(flags)));
        story.extend(of_all(Event::Return));
        story
    })
}

/// A story.
pub fn events(length: usize) -> impl Strategy<Value = Vec<Event>> {
    vec(event(), 1..length)
}

/// A story of up to so many parts, for those who can let time pass.
pub fn long_story(length: usize) -> impl Strategy<Value = Vec<Event>> {
    let part = prop_oneof![80 => event().prop_map(|event| vec![event]), 1 => an_orphan()];
    vec(part, 1..length).prop_map(|parts| parts.concat())
}
