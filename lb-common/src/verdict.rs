//! The datapath's answer, with its reason. Numbers are stable: never reused, never renumbered.
use crate::{counter::Counter, event::RefusalKind};

/// What becomes of a packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: no byte has been changed.
    Pass(PassReason),
    /// Rewritten; the stack goes on with it.
    Translated(Translation),
    /// Ours, but nobody may have it.
    Drop(DropReason),
}

/// Which rewrite was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Translation {
    /// Frontend to backend, on ingress.
    Request = 0,
    /// Backend to frontend, on egress.
    Reply = 1,
    /// Client to the node's address, on egress towards the backend.
    MasqueradedRequest = 2,
    /// The node's address to the client, on ingress from the backend.
    MasqueradedReply = 3,
    /// An ICMP error, and the packet it quotes, at either hook.
    IcmpError = 4,
    /// A later fragment, like the first one of its datagram, at either hook.
    LaterFragment = 5,
}

/// Why a packet is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum PassReason {
    /// Neither IPv4 nor IPv6.
    NotIp = 0,
    /// An IP protocol without ports that services know.
    OtherProtocol = 1,
    /// Shorter than its own headers claim, or a header that cannot be.
    Malformed = 2,
    /// A later fragment of a datagram that is not ours: it carries no ports.
    LaterFragment = 3,
    /// No flow and no frontend has this tuple.
    NotOurs = 4,
    /// The packet belongs to a direct connection to a backend, whose ports are kept: [`crate::FrontendFlags::DIRECT`].
    Direct = 5,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum DropReason {
    /// The service has no backend; the sender is told.
    NoBackend = 0,
    /// A TCP segment that opens nothing and belongs to no flow that is known; the sender is told.
    NoFlow = 1,
    /// A flow of another frontend owns the reply tuple, and no other source port was found free.
    FlowConflict = 2,
    /// The kernel refused to remember the flow.
    FlowNotStored = 3,
    /// The first fragment of a datagram that could not be remembered, so that the later ones could not be translated; or of
    /// an SCTP packet.
    Fragmented = 4,
    /// The egress device and the node have no address to masquerade with.
    NoMasqueradeAddress = 5,
    /// No free masquerade port was found.
    NoMasqueradePort = 6,
    /// The packet was changed in part and cannot be finished.
    HalfRewritten = 7,
    /// The service's entries changed under the reader more often than it tries again.
    ServiceInMotion = 8,
    /// The service has backends, but none that this client may have: its policy is `Local`, and they are elsewhere.
    NoLocalBackend = 9,
    /// An ICMP redirect about packets that are translated.
    Redirect = 10,
    /// An ICMP error about a translated packet, which it quotes at a place that cannot be written.
    QuoteOutOfReach = 11,
    /// The service's load balancer may not be dialled from this address.
    SourceNotAllowed = 12,
    /// The address is a Service's, but the port is none of its ports; the sender is told.
    NoSuchPort = 13,
    /// The address is one of those that Services get, and no Service has it.
    NoSuchService = 14,
    /// A later fragment to a Service's address whose first has not come by.
    EarlyFragment = 15,
    /// A TCP segment of a flow whose backend's pod is gone for good; the sender is told.
    BackendGone = 16,
}

impl Verdict {
    /// The counter that this verdict adds one to, if any. Packets that are not ours are not counted one by one:
    /// they are the node's whole other traffic, and their cost is what the datapath is judged by.
    #[inline(always)]
    pub const fn counter(self) -> Option<Counter> {
        match self {
            Self::Pass(_) => None,
            Self::Translated(Translation::Request) => Some(Counter::Requests),
            Self::Translated(Translation::Reply) => Some(Counter::Replies),
            Self::Translated(Translation::MasqueradedRequest) => Some(Counter::MasqueradedRequests),
            Self::Translated(Translation::MasqueradedReply) => Some(Counter::MasqueradedReplies),
            Self::Translated(Translation::IcmpError) => Some(Counter::IcmpErrors),
            Self::Translated(Translation::LaterFragment) => Some(Counter::LaterFragments),
            Self::Drop(reason) => Some(reason.counter()),
        }
    }
}

impl DropReason {
    /// The reason with this number; one that no reason has stands for [`Self::HalfRewritten`], the only one that speaks
    /// of a fault of ours.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        const REASONS: [DropReason; 17] = [
            DropReason::NoBackend,
            DropReason::NoFlow,
            DropReason::FlowConflict,
            DropReason::FlowNotStored,
            DropReason::Fragmented,
            DropReason::NoMasqueradeAddress,
            DropReason::NoMasqueradePort,
            DropReason::HalfRewritten,
            DropReason::ServiceInMotion,
            DropReason::NoLocalBackend,
            DropReason::Redirect,
            DropReason::QuoteOutOfReach,
            DropReason::SourceNotAllowed,
            DropReason::NoSuchPort,
            DropReason::NoSuchService,
            DropReason::EarlyFragment,
            DropReason::BackendGone,
        ];
        let mut nth = 0;
        while nth < REASONS.len() {
            if REASONS[nth] as u32 == number {
                return REASONS[nth];
            }
            nth += 1;
        }
        Self::HalfRewritten
    }

    /// How the sender is told; `None`: it hears nothing.
    #[inline(always)]
    pub const fn refusal(self) -> Option<RefusalKind> {
        match self {
            Self::NoBackend | Self::NoSuchPort => Some(RefusalKind::Unreachable),
            Self::NoFlow | Self::BackendGone => Some(RefusalKind::Reset),
            Self::FlowConflict
            | Self::FlowNotStored
            | Self::Fragmented
            | Self::NoMasqueradeAddress
            | Self::NoMasqueradePort
            | Self::HalfRewritten
            | Self::ServiceInMotion
            | Self::NoLocalBackend
            | Self::Redirect
            | Self::QuoteOutOfReach
            | Self::SourceNotAllowed
            | Self::NoSuchService
            | Self::EarlyFragment => None,
        }
    }

    /// Whether a rule keeps this client out, rather than that nobody is there to answer.
    #[inline(always)]
    pub const fn is_by_rule(self) -> bool {
        matches!(
            self,
            Self::NoLocalBackend | Self::SourceNotAllowed | Self::NoSuchService
        )
    }

    /// The counter of this reason.
    #[inline(always)]
    pub const fn counter(self) -> Counter {
        match self {
            Self::NoBackend => Counter::DropNoBackend,
            Self::NoFlow => Counter::DropNoFlow,
            Self::FlowConflict => Counter::DropFlowConflict,
            Self::FlowNotStored => Counter::DropFlowNotStored,
            Self::Fragmented => Counter::DropFragmented,
            Self::NoMasqueradeAddress => Counter::DropNoMasqueradeAddress,
            Self::NoMasqueradePort => Counter::DropNoMasqueradePort,
            Self::HalfRewritten => Counter::DropHalfRewritten,
            Self::ServiceInMotion => Counter::DropServiceInMotion,
            Self::NoLocalBackend => Counter::DropNoLocalBackend,
            Self::Redirect => Counter::DropRedirect,
            Self::QuoteOutOfReach => Counter::DropQuoteOutOfReach,
            Self::SourceNotAllowed => Counter::DropSourceNotAllowed,
            Self::NoSuchPort => Counter::DropNoSuchPort,
            Self::NoSuchService => Counter::DropNoSuchService,
            Self::EarlyFragment => Counter::DropEarlyFragment,
            Self::BackendGone => Counter::DropBackendGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_about_our_packets_has_a_counter_of_its_own_and_each_reason_its_number() {
        let translations = [
            Translation::Request,
            Translation::Reply,
            Translation::MasqueradedRequest,
            Translation::MasqueradedReply,
            Translation::IcmpError,
            Translation::LaterFragment,
        ];
        let mut seen = [false; Counter::ALL.len()];
        let mut mark = |verdict: Verdict| {
            let counter = verdict.counter().unwrap() as usize;
            assert!(!core::mem::replace(&mut seen[counter], true), "{verdict:?}");
        };
        for translation in translations {
            mark(Verdict::Translated(translation));
        }
        for number in 0..17 {
            let reason = DropReason::from_number(number);
            assert_eq!(reason as u32, number);
            mark(Verdict::Drop(reason));
        }
        assert_eq!(DropReason::from_number(99), DropReason::HalfRewritten);
    }
}
