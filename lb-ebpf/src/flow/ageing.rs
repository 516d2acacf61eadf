//! When a silent flow is forgotten.
use lb_common::{FlowEntry, FlowFlags, FlowSide, Protocol, Tuple, config::Timeouts};

use crate::{
    bytes::{headers::Wire, parsed::is_udp},
    context::clock::Instant,
    flow::claim::OPENING_SECONDS,
};

/// How long an association may be silent: its ends ask for each other every 30 seconds (RFC 9260, section 8.3). The
/// kernel's own tracking of connections waits as long.
const SCTP_SECONDS: u32 = 210;

/// Whether a proven flow's entry may go. Both halves age by the newer of their two times: a connection that only sends
/// or only receives is not silent.
#[inline(always)]
pub fn is_expired<F: Wire>(
    key: &Tuple<F>,
    entry: &FlowEntry<F>,
    other: Option<&FlowEntry<F>>,
    timeouts: &Timeouts,
    now: Instant,
) -> bool {
    let other_flags = other.map_or(FlowFlags::NONE, |other| other.flags);
    let seconds = if is_udp(key) {
        timeouts.udp_stream
    } else if key.protocol_number() == Protocol::Sctp.number() {
        tcp_timeout(entry.flags, other_flags, timeouts).min(SCTP_SECONDS)
    } else {
        tcp_timeout(entry.flags, other_flags, timeouts)
    };
    now.is_after(entry.last_seen, seconds)
        && other.is_none_or(|other| now.is_after(other.last_seen, seconds))
}

/// The same for a flow that has not proven itself: a minute of silence ends it, or over UDP, where nobody has answered,
/// the timeout for that. One that has proven itself, but found no room among the proven ones, has their timeouts, and so
/// has a UDP flow that was answered.
#[inline(always)]
pub fn is_expired_opening<F: Wire>(
    key: &Tuple<F>,
    entry: &FlowEntry<F>,
    other: Option<&FlowEntry<F>>,
    timeouts: &Timeouts,
    now: Instant,
) -> bool {
    let other_flags = other.map_or(FlowFlags::NONE, |other| other.flags);
    let flags = entry.flags.with(other_flags);
    if flags.has(FlowFlags::CROWDED) || is_udp(key) && flags.has(FlowFlags::REPLIED) {
        return is_expired(key, entry, other, timeouts, now);
    }
    let seconds = if is_udp(key) {
        timeouts.udp
    } else {
        OPENING_SECONDS
    };
    now.is_after(entry.last_seen, seconds)
        && other.is_none_or(|other| now.is_after(other.last_seen, seconds))
}

/// After how many seconds of silence an opening flow may be one that is forgotten.
#[inline(always)]
pub fn least_opening_seconds(timeouts: &Timeouts) -> u32 {
    timeouts.udp.min(OPENING_SECONDS)
}

/// The reply tuple of the flow that a masquerade belongs to, if the entry is of a masquerade: it stays as long as its flow.
#[inline(always)]
pub fn flow_of_masquerade<F: Wire>(key: &Tuple<F>, entry: &FlowEntry<F>) -> Option<Tuple<F>> {
    let is_request = entry.flags.has(FlowFlags::REQUEST);
    let is_source = entry.side == FlowSide::Source.byte();
    if !entry.flags.has(FlowFlags::MASQUERADE) || is_request != is_source {
        return None;
    }
    Some(if is_source {
        key.reversed()
    } else {
        entry.translated(key)
    })
}

#[inline(always)]
const fn tcp_timeout(own: FlowFlags, other: FlowFlags, timeouts: &Timeouts) -> u32 {
    if own.with(other).has(FlowFlags::RST) {
        return timeouts.tcp_closed;
    }
    match (own.has(FlowFlags::FIN), other.has(FlowFlags::FIN)) {
        (true, true) => timeouts.tcp_closed,
        (true, false) | (false, true) => timeouts.tcp_close_wait,
        (false, false) => timeouts.tcp_established,
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use lb_common::{Port, V4};

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        tcp_established: 1000,
        tcp_close_wait: 100,
        tcp_closed: 10,
        udp_stream: 50,
        udp: 20,
    };

    fn expired(
        protocol: u8,
        own: FlowFlags,
        other: Option<(FlowFlags, u32)>,
        seconds: u32,
    ) -> bool {
        let key = Tuple::<V4>::new(
            Zeroable::zeroed(),
            Port::ZERO,
            Zeroable::zeroed(),
            Port::ZERO,
            protocol,
        );
        let entry = FlowEntry {
            flags: own,
            ..FlowEntry::zeroed()
        };
        let mut second = entry;
        if let Some((flags, last_seen)) = other {
            second.flags = flags;
            second.last_seen = last_seen;
        }
        let now = Instant {
            jiffies: seconds * 250,
            per_second: 250,
        };
        is_expired(&key, &entry, other.map(|_| &second), &TIMEOUTS, now)
    }

    #[test]
    fn each_state_has_its_own_timeout() {
        let (none, fin, rst) = (FlowFlags::NONE, FlowFlags::FIN, FlowFlags::RST);
        for (own, other, timeout) in [
            (none, none, 1000),
            (fin, none, 100),
            (none, fin, 100),
            (fin, fin, 10),
            (none, rst, 10),
        ] {
            assert!(
                !expired(6, own, Some((other, 0)), timeout - 1),
                "{own:?} {other:?}"
            );
            assert!(
                expired(6, own, Some((other, 0)), timeout),
                "{own:?} {other:?}"
            );
        }
        assert!(!expired(17, none, None, 49) && expired(17, none, None, 50));
    }

    /// Whether an opening flow may go that has been silent for so long, on its own side and on the other.
    fn opening_expired(protocol: u8, own: FlowFlags, other: FlowFlags, silent: (u32, u32)) -> bool {
        let key = Tuple::<V4>::new(
            Zeroable::zeroed(),
            Port::ZERO,
            Zeroable::zeroed(),
            Port::ZERO,
            protocol,
        );
        let [entry, second] =
            [(own, silent.0), (other, silent.1)].map(|(flags, silent)| FlowEntry {
                flags,
                last_seen: (2000 - silent) * 250,
                ..FlowEntry::zeroed()
            });
        let now = Instant {
            jiffies: 2000 * 250,
            per_second: 250,
        };
        is_expired_opening(&key, &entry, Some(&second), &TIMEOUTS, now)
    }

    #[test]
    fn an_opening_flow_ends_in_its_time_unless_it_has_proven_itself_or_was_answered() {
        let (none, replied, crowded) = (FlowFlags::NONE, FlowFlags::REPLIED, FlowFlags::CROWDED);
        for (protocol, flags, timeout) in [
            (6, none, 60),
            (17, none, 20),
            (6, replied, 60),
            (17, replied, 50),
            (6, crowded, 1000),
            (17, crowded, 50),
        ] {
            for (own, other) in [(flags, none), (none, flags)] {
                let what = format!("{protocol} {own:?} {other:?}");
                let expired = |silent| opening_expired(protocol, own, other, silent);
                assert!(expired((timeout, timeout)), "{what}");
                assert!(!expired((timeout - 1, timeout)), "{what}: it spoke");
                assert!(!expired((timeout, timeout - 1)), "{what}: the other spoke");
            }
        }
    }

    #[test]
    fn no_opening_flow_is_forgotten_before_it_is_looked_at() {
        for (udp, least) in [(20, 20), (60, 60), (90, 60)] {
            let timeouts = Timeouts { udp, ..TIMEOUTS };
            assert_eq!(least_opening_seconds(&timeouts), least);
        }
    }

    #[test]
    fn an_association_is_given_up_sooner_than_a_connection() {
        const LONG: Timeouts = Timeouts {
            tcp_established: 86_400,
            ..TIMEOUTS
        };
        let key = Tuple::<V4>::new(
            Zeroable::zeroed(),
            Port::ZERO,
            Zeroable::zeroed(),
            Port::ZERO,
            Protocol::Sctp.number(),
        );
        let entry = FlowEntry::zeroed();
        let after = |seconds: u32| Instant {
            jiffies: seconds * 250,
            per_second: 250,
        };
        assert!(!is_expired(&key, &entry, None, &LONG, after(209)));
        assert!(is_expired(&key, &entry, None, &LONG, after(210)));
        // Where connections end sooner, associations do.
        assert!(is_expired(&key, &entry, None, &TIMEOUTS, after(210)));
        let closed = FlowEntry {
            flags: FlowFlags::RST,
            ..entry
        };
        assert!(is_expired(&key, &closed, None, &LONG, after(10)));
    }

    #[test]
    fn both_entries_of_a_masquerade_name_their_flow_and_no_other_entry_does() {
        let at = |last: u8| [10, 0, 0, last].into();
        let [client, backend, masquerade] = [at(1), at(2), at(3)];
        let port = Port::new;
        let reply = Tuple::<V4>::new(backend, port(80), client, port(1000), 6);
        let masqueraded = FlowFlags::MASQUERADE;
        let request = masqueraded.with(FlowFlags::REQUEST);
        let (source, destination) = (FlowSide::Source.byte(), FlowSide::Destination.byte());
        let entry = |address, number, side, flags| FlowEntry {
            address,
            port: port(number),
            side,
            flags,
            ..FlowEntry::zeroed()
        };
        let outwards = entry(masquerade, 2000, source, request);
        let out_key = reply.reversed();
        assert_eq!(flow_of_masquerade(&out_key, &outwards), Some(reply));
        let back_key = outwards.other_half(&out_key);
        let back = entry(client, 1000, destination, masqueraded);
        assert_eq!(flow_of_masquerade(&back_key, &back), Some(reply));
        // The flow's own entries are not its masquerade's, nor are those of a flow without one.
        for (side, flags) in [
            (destination, request),
            (source, masqueraded),
            (source, FlowFlags::REQUEST),
            (destination, FlowFlags::NONE),
        ] {
            let own = entry(backend, 80, side, flags);
            assert_eq!(flow_of_masquerade(&out_key, &own), None, "{side} {flags:?}");
        }
    }

    #[test]
    fn a_flow_that_is_made_while_the_sweep_runs_stays() {
        let key = Tuple::<V4>::new(
            Zeroable::zeroed(),
            Port::ZERO,
            Zeroable::zeroed(),
            Port::ZERO,
            6,
        );
        let entry = FlowEntry {
            last_seen: 1001,
            ..FlowEntry::zeroed()
        };
        let sweep_began = Instant {
            jiffies: 1000,
            per_second: 250,
        };
        assert!(!is_expired(
            &key,
            &entry,
            Some(&entry),
            &TIMEOUTS,
            sweep_began
        ));
        assert!(!is_expired(&key, &entry, None, &TIMEOUTS, sweep_began));
    }

    #[test]
    fn a_flow_that_speaks_one_way_only_is_not_silent() {
        let other_spoke_at_900s = Some((FlowFlags::NONE, 900 * 250));
        assert!(!expired(6, FlowFlags::NONE, other_spoke_at_900s, 1000));
    }
}
