//! Which endpoints may take new flows: kube-proxy's rule for the cluster-wide policy.
use crate::model::{Endpoint, Service};

/// Whether an endpoint is ready, terminating but still serving, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// Never.
    Unfit,
    /// Only if nobody is ready.
    LastResort,
    /// Yes.
    Ready,
}

/// How fit an endpoint is. A terminating pod that still answers is the last resort: at the end of a rolling update of
/// a single replica there may be nobody else (KEP-1669).
pub(super) fn fitness(service: &Service, endpoint: &Endpoint) -> Fitness {
    if endpoint.ready || service.publish_not_ready_addresses {
        Fitness::Ready
    } else if endpoint.serving && endpoint.terminating {
        Fitness::LastResort
    } else {
        Fitness::Unfit
    }
}

/// The least fitness that serves, given the best there is.
pub(super) fn required(best: Fitness) -> Fitness {
    match best {
        Fitness::Ready => Fitness::Ready,
        Fitness::LastResort | Fitness::Unfit => Fitness::LastResort,
    }
}
