//! The agent's state for people.
use std::time::Duration;

use crate::{
    agent::{
        Agent, milliseconds, no_backends,
        view::{BackendView, NotServedView, PlanView, ServiceView, TakenFrontend, View},
    },
    maps::{LbMaps, dump},
    model::Family,
};

impl<M: LbMaps> Agent<M> {
    /// The state at this moment. Costs time in proportion to everything there is; nobody pays for it who does not ask.
    pub fn view(&self, now: Duration) -> View {
        let refused = self.reconciler.refusals();
        let mut warnings = self.knowledge.warnings(self.settings.list_timeout, now);
        warnings.extend(refused.iter().cloned());
        let settled = self.reconciler.is_settled();
        View {
            services: self.services(now),
            backends: Family::ALL
                .into_iter()
                .flat_map(|family| self.backends(family))
                .collect(),
            not_served: self.not_served(),
            warnings,
            settled,
            in_sync: settled && refused.is_empty(),
            refused,
            sources: self.knowledge.source_views(now),
            last_plan: self.last_plan(now),
            pending: self.reconciler.waiting(),
        }
    }

    fn services(&self, now: Duration) -> Vec<ServiceView> {
        let served = self.reconciler.ledger.served();
        let views = served.map(|shown| {
            let service = self.knowledge.snapshot.service(&shown.key.port.service);
            let no_backends_because = shown.slots.is_empty().then(|| {
                let slices: Vec<_> = self
                    .knowledge
                    .snapshot
                    .slices_of(&shown.key.port.service)
                    .collect();
                no_backends::because(shown.key, &slices, self.knowledge.snapshot.place())
            });
            ServiceView {
                id: shown.id,
                namespace: shown.key.port.service.namespace.clone(),
                name: shown.key.port.service.name.clone(),
                kind: service.map(|service| service.kind),
                cluster_ip: service.and_then(|service| service.cluster_ip(shown.key.family)),
                port: shown.key.port.port.clone(),
                protocol: shown.key.port.protocol.to_string(),
                family: shown.key.family,
                health_check_port: service.and_then(|service| service.health_check_port),
                frontends: shown
                    .frontends
                    .iter()
                    .map(crate::desired::Frontend::socket_address)
                    .collect(),
                taken: shown
                    .taken
                    .iter()
                    .map(|(frontend, owner)| TakenFrontend {
                        frontend: frontend.socket_address(),
                        by: owner.port.service.to_string(),
                    })
                    .collect(),
                backends: shown.slots.to_vec(),
                no_backends_because,
                changed_ms: self
                    .knowledge
                    .changed(&shown.key.port.service)
                    .map(|changed| milliseconds(now.saturating_sub(changed))),
            }
        });
        views.collect()
    }

    fn backends(&self, family: Family) -> impl Iterator<Item = BackendView> {
        let backends = self.reconciler.ledger.backends(family);
        backends.map(move |(id, backend)| BackendView {
            id,
            family,
            address: backend.address,
            state: dump::state(backend.state).to_owned(),
            generation: backend.generation,
            service_id: backend.service_id,
            service: self
                .reconciler
                .ledger
                .name(backend.service_id)
                .map(|key| key.port.to_string()),
            pod: backend.target.as_ref().map(|target| target.name.clone()),
            node: backend.node.clone(),
        })
    }

    fn not_served(&self) -> Vec<NotServedView> {
        let services = self.knowledge.snapshot.services();
        let views = services.filter_map(|service| {
            let reason = service.not_served?;
            Some(NotServedView {
                service: service.name.to_string(),
                reason: reason.to_string(),
            })
        });
        views.collect()
    }

    fn last_plan(&self, now: Duration) -> Option<PlanView> {
        let (report, end) = self.last.as_ref()?;
        Some(PlanView {
            changes: report.changes,
            microseconds: u64::try_from(report.duration.as_micros()).unwrap_or(u64::MAX),
            age_ms: milliseconds(now.saturating_sub(*end)),
            error: report.error.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::{
        agent::{Event, Settings, Source},
        convert,
        maps::fake::FakeMaps,
        model::{Place, ServiceType},
    };

    fn settings(place: Place) -> Settings {
        let moment = Duration::from_secs(1);
        Settings {
            sources: BTreeSet::from([Source::Services]),
            collect: moment,
            region_rest: moment,
            gone_grace: moment,
            backoff: (moment, moment),
            list_timeout: moment,
            node_device: None,
            place,
        }
    }

    #[test]
    fn node_ports_that_no_address_is_known_for_are_told_of() {
        let moment = Duration::from_secs(1);
        for (node_port, address, expected) in [
            (Some(30080), None, 1),
            (Some(30080), Some("192.0.2.1"), 0),
            (None, None, 0),
        ] {
            let place = Place {
                addresses: address.iter().map(|it| it.parse().unwrap()).collect(),
                ..Place::default()
            };
            let mut agent = Agent::new(settings(place), FakeMaps::default()).unwrap();
            let object = json!({"metadata": {"name": "web"}, "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": node_port}],
            }});
            let service = convert::service(&serde_json::from_value(object).unwrap());
            agent.handle(Event::ServicesListed(vec![service]), moment);
            let warnings = agent.view(moment).warnings;
            let told = warnings.iter().filter(|it| it.remedy.contains("--node-ip"));
            assert_eq!(
                told.count(),
                expected,
                "{node_port:?} at {address:?}: {warnings:?}"
            );
        }
    }

    #[test]
    fn a_service_that_asks_for_more_than_it_gets_is_served_and_named() {
        let moment = Duration::from_secs(1);
        let mut agent = Agent::new(settings(Place::default()), FakeMaps::default()).unwrap();
        let object = json!({"metadata": {"name": "web"}, "spec": {
            "type": "LoadBalancer",
            "loadBalancerSourceRanges": ["home"], "clusterIP": "10.96.0.1", "ports": [{"port": 80}],
        }});
        let service = convert::service(&serde_json::from_value(object).unwrap());
        agent.handle(Event::ServicesListed(vec![service]), moment);
        agent.reconcile(&|| moment);
        let view = agent.view(moment);
        let shown: Vec<_> = view.services.iter().map(|service| service.kind).collect();
        assert_eq!(shown, [Some(ServiceType::LoadBalancer)]);
        let warnings: Vec<_> = view.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in ["default/web", "loadBalancerSourceRange `home`"] {
            assert!(warnings[0].contains(part), "no `{part}` in {warnings:?}");
        }
        assert!(view.settled && view.in_sync);
    }
}
