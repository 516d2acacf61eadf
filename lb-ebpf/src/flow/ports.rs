//! The ports that a flow gets where its client's own is taken.
use lb_common::Port;

/// How many ports are tried when the client's own is taken.
pub(crate) const PORT_TRIES: u32 = 8;
/// How many ports are tried for a masquerade. All masqueraded clients of a backend share the range.
pub(crate) const MASQUERADE_TRIES: u32 = 48;
/// After how many tries the port of a closed flow is reused. An unused port is better, because the pod's socket of the
/// closed connection may be in `TIME_WAIT`.
pub(crate) const FRESH_TRIES: u32 = 12;

/// Whether [`port_from_range`] may give this port.
#[inline(always)]
pub(crate) fn is_ours(port: Port) -> bool {
    let number = port.number();
    (1024..30_000).contains(&number) || number >= 61_000
}

/// A port of 1024-29999 or 61000-65535: outside the node ports and the usual ephemeral range.
#[inline(always)]
pub(crate) fn port_from_range(word: u32) -> Port {
    const LOW: u32 = 30_000 - 1024;
    const HIGH: u32 = 65_536 - 61_000;
    let nth = lb_common::hash::place(word.wrapping_mul(0x9e37_79b1), LOW + HIGH);
    let number = if nth < LOW {
        1024 + nth
    } else {
        61_000 - LOW + nth
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "below 65536: see the ranges"
    )]
    let number = number as u16;
    Port::new(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_clear_of_node_ports_and_ephemeral_ports() {
        for word in 0..200_000u32 {
            let port = port_from_range(word.wrapping_mul(21_473));
            assert!(is_ours(port), "{port:?}");
        }
    }
}
