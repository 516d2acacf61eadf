//! What there is to find about a Service: in its objects, and in how it is served.
use crate::{
    agent::{Agent, Source},
    findings::{About, Finding, Reason},
    maps::LbMaps,
    model::ServiceName,
};

impl<M: LbMaps> Agent<M> {
    /// What its owner should know of the Service.
    pub(super) fn about(&self, name: &ServiceName) -> About {
        let unreadable = self
            .knowledge
            .unreadable_of(name)
            .map(|(source, it)| Finding {
                reason: match source {
                    Source::EndpointSlices => Reason::InvalidEndpoints,
                    Source::Manifests | Source::Services | Source::Node | Source::ServiceCidrs => {
                        Reason::InvalidService
                    }
                },
                key: it.warning.subject.clone(),
                warning: it.warning.clone(),
            });
        let served = self.knowledge.snapshot.service(name);
        let Some(service) = served.filter(|it| it.not_served.is_none()) else {
            // The uid of a Service is known even if the Service could never be read.
            let mut own = self
                .knowledge
                .unreadable_of(name)
                .filter(|(source, _)| *source == Source::Services);
            return own.next().map_or_else(About::default, |(_, it)| About {
                uid: it.uid.clone(),
                findings: unreadable.collect(),
            });
        };
        let of_slices = self
            .knowledge
            .snapshot
            .slices_of(name)
            .flat_map(|it| &it.warnings);
        let of_slices = of_slices.map(|it| (Reason::InvalidEndpoints, it));
        let own = service.warnings.iter();
        let written = own.map(|it| (Reason::InvalidService, it)).chain(of_slices);
        let written = written.map(|(reason, warning)| Finding {
            reason,
            key: format!("{}: {}", warning.subject, warning.problem),
            warning: warning.clone(),
        });
        let refused = self.reconciler.refused.get(name).map(|refusal| Finding {
            reason: Reason::NoRoom,
            key: String::new(),
            warning: refusal.warning(name),
        });
        let disputes = self
            .reconciler
            .disputes
            .iter()
            .filter(|it| it.loser == *name);
        let disputes = disputes.map(|it| Finding {
            reason: Reason::FrontendTaken,
            key: it.owner.to_string(),
            warning: it.warning.clone(),
        });
        About {
            uid: service.uid.clone(),
            findings: unreadable
                .chain(written)
                .chain(refused)
                .chain(disputes)
                .collect(),
        }
    }
}
