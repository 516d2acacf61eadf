//! Counters: one per thing worth knowing. COUNTERS is a per-CPU array of u64, indexed by [`Counter`].

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Index into COUNTERS. Numbers are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant = $number,)+
        }
        impl Counter {
            /// Every counter, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name under which people see it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
            /// What it counts, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

counters! {
    /// Request packets that were sent to a backend.
    Requests = 0, "requests";
    /// Reply packets that got their frontend's address back.
    Replies = 1, "replies";
    /// Request packets whose source became the node's address.
    MasqueradedRequests = 2, "masqueraded_requests";
    /// Reply packets that got their client's address back.
    MasqueradedReplies = 3, "masqueraded_replies";
    /// Flows for which a backend was chosen.
    FlowsOpened = 4, "flows_opened";
    /// Flows that proved themselves and moved to FLOWS.
    FlowsProven = 5, "flows_proven";
    /// Flows that proved themselves but stayed among the opening ones because FLOWS is full: they work, and may be evicted.
    FlowsTableFull = 6, "flows_table_full";
    /// UDP flows that chose again because their backend had left the service.
    FlowsRebalanced = 7, "flows_rebalanced";
    /// Halves of flows that were missing and were put back.
    FlowsRepaired = 8, "flows_repaired";
    /// Finished or silent flows that were removed.
    FlowsExpired = 9, "flows_expired";
    /// Socket calls (connect, sendmsg) that were sent to a backend.
    SocketRequests = 10, "socket_requests";
    /// Socket calls (recvmsg, getpeername) that got their frontend's address back.
    SocketReplies = 11, "socket_replies";
    /// Socket calls refused because the service has no backend.
    SocketRefused = 12, "socket_refused";
    /// ICMP errors about translated packets that were translated with the packet they quote.
    IcmpErrors = 13, "icmp_errors";
    /// Socket calls that failed: this process may not reach the service here, though others may.
    SocketDenied = 14, "socket_denied";
    /// Later fragments, without ports, that were translated like the first one of their datagram.
    LaterFragments = 15, "later_fragments";
    /// Packets refused: the service has no backend.
    DropNoBackend = 16, "drop_no_backend";
    /// Packets refused: a TCP segment that opens nothing and belongs to no known flow.
    DropNoFlow = 17, "drop_no_flow";
    /// Packets dropped: the client talks to the same backend by another frontend from the same port, and no other source port was found free.
    DropFlowConflict = 18, "drop_flow_conflict";
    /// Packets dropped: the kernel refused to remember the flow.
    DropFlowNotStored = 19, "drop_flow_not_stored";
    /// Packets dropped: the first fragment of a datagram, which could not be remembered or is of SCTP.
    DropFragmented = 20, "drop_fragmented";
    /// Packets dropped: neither the egress device nor the node has an address to masquerade with.
    DropNoMasqueradeAddress = 21, "drop_no_masquerade_address";
    /// Packets dropped: no free masquerade port was found.
    DropNoMasqueradePort = 22, "drop_no_masquerade_port";
    /// Packets dropped: changed in part and impossible to finish.
    DropHalfRewritten = 23, "drop_half_rewritten";
    /// Packets dropped: the service changed under the reader more often than it tries again.
    DropServiceInMotion = 24, "drop_service_in_motion";
    /// Packets dropped: the service has no backend on this node, where its policy is `Local`, but elsewhere it has.
    DropNoLocalBackend = 25, "drop_no_local_backend";
    /// Packets dropped: an ICMP redirect about packets that are translated.
    DropRedirect = 26, "drop_redirect";
    /// Packets dropped: an ICMP error that quotes a translated packet at a place that cannot be written.
    DropQuoteOutOfReach = 27, "drop_quote_out_of_reach";
    /// Packets dropped: the service's load balancer may not be dialled from their source address.
    DropSourceNotAllowed = 28, "drop_source_not_allowed";
    /// Packets refused: the address is a service's, the port is none of its ports.
    DropNoSuchPort = 29, "drop_no_such_port";
    /// Packets dropped: no service has this address, though it is one for services.
    DropNoSuchService = 30, "drop_no_such_service";
    /// Packets dropped: a later fragment to a Service's address that came before the first one of its datagram, or without.
    DropEarlyFragment = 31, "drop_early_fragment";
    /// Packets refused: a TCP segment of a flow whose backend's pod is gone for good.
    DropBackendGone = 32, "drop_backend_gone";
}

/// Length of COUNTERS; unused numbers are room for counters to come.
pub const COUNTERS_LENGTH: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        assert!(Counter::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(
            Counter::ALL
                .iter()
                .all(|counter| (*counter as u32) < COUNTERS_LENGTH)
        );
    }
}
