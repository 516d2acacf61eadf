//! What the agent finds about Services that their owners should know.
use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::{
    agent::Agent,
    desired::Dispute,
    findings::{
        About, Finding, Findings, Reason,
        node_ports::{NodePort, NodePorts},
    },
    maps::LbMaps,
    model::{Family, ServiceName},
};

impl<M: LbMaps> Agent<M> {
    /// What is to be said about Services.
    pub fn findings(&self) -> watch::Receiver<Findings> {
        self.findings.subscribe()
    }

    /// The node ports that are served.
    pub fn node_ports(&self) -> watch::Receiver<NodePorts> {
        self.node_ports.subscribe()
    }

    /// Something about a Service may be to be said, or not to be said any more.
    pub(super) fn file(&self, name: &ServiceName) {
        let about = self.about(name);
        self.findings.send_if_modified(|all| {
            if about.findings.is_empty() {
                return all.remove(name).is_some();
            }
            let changed = all.get(name) != Some(&about);
            if changed {
                all.insert(name.clone(), about);
            }
            changed
        });
    }

    fn about(&self, name: &ServiceName) -> About {
        let served = self.snapshot.service(name);
        let Some(service) = served.filter(|it| it.not_served.is_none()) else {
            return About::default();
        };
        let of_slices = self.snapshot.slices_of(name).flat_map(|it| &it.warnings);
        let of_slices = of_slices.map(|it| (Reason::InvalidEndpoints, it));
        let own = service.warnings.iter();
        let written = own.map(|it| (Reason::InvalidService, it)).chain(of_slices);
        let written = written.map(|(reason, warning)| Finding {
            reason,
            key: format!("{}: {}", warning.subject, warning.problem),
            warning: warning.clone(),
        });
        let refused = self.refused.get(name).map(|refusal| Finding {
            reason: Reason::NoRoom,
            key: String::new(),
            warning: refusal.warning(name),
        });
        let disputes = self.disputes.iter().filter(|it| it.loser == *name);
        let disputes = disputes.map(|it| Finding {
            reason: Reason::FrontendTaken,
            key: it.owner.to_string(),
            warning: it.warning.clone(),
        });
        About {
            uid: service.uid.clone(),
            findings: written.chain(refused).chain(disputes).collect(),
        }
    }

    /// Services dispute other frontends than before.
    pub(super) fn set_disputes(&mut self, disputes: BTreeSet<Dispute>) {
        for news in disputes.difference(&self.disputes) {
            tracing::warn!("{}", news.warning);
        }
        let before = std::mem::replace(&mut self.disputes, disputes);
        let changed = before.symmetric_difference(&self.disputes);
        let losers: BTreeSet<&ServiceName> = changed.map(|it| &it.loser).collect();
        for loser in losers {
            self.file(loser);
        }
    }

    /// A Service may have other node ports.
    pub(super) fn note_node_ports(&self, name: &ServiceName) {
        let service = self.snapshot.service(name);
        let served = service.filter(|it| it.not_served.is_none());
        let ports: BTreeSet<NodePort> = served
            .into_iter()
            .flat_map(|service| {
                let families = Family::ALL.into_iter();
                let families = families.filter(|it| service.cluster_ip(*it).is_some());
                families.flat_map(|family| {
                    let ports = service.ports.iter();
                    ports.filter_map(move |port| {
                        Some(NodePort {
                            family,
                            protocol: port.protocol,
                            number: port.node_port?,
                        })
                    })
                })
            })
            .collect();
        let uid = service.map_or_else(String::new, |it| it.uid.clone());
        self.node_ports
            .send_if_modified(|all| all.set(name, uid, ports));
    }
}
