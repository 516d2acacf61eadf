//! What the agent says for health checks.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    agent::{Agent, Source},
    desired,
    health::{Check, Facts},
    maps::LbMaps,
    model::{Family, ServiceName},
};

impl<M: LbMaps> Agent<M> {
    /// What health checks are answered by. Somebody who waits is told of other servers, not of other answers.
    pub fn health(&self) -> watch::Receiver<Facts> {
        self.health.subscribe()
    }

    /// What is known of the node may have changed.
    pub(super) fn tell_place(&self) {
        let knows_nodes = self.settings.sources.contains(&Source::Node);
        let is_node_eligible = match self.snapshot.node() {
            Some(node) => !node.leaving,
            None => !knows_nodes,
        };
        let place = self.snapshot.place();
        let addresses: BTreeSet<IpAddr> = Family::ALL
            .into_iter()
            .flat_map(|family| place.node_port_addresses(family))
            .collect();
        self.node_ports.send_if_modified(|all| {
            let changed = all.addresses != addresses;
            all.addresses.clone_from(&addresses);
            changed
        });
        self.health.send_if_modified(|facts| {
            facts.is_node_eligible = is_node_eligible;
            let changed = facts.addresses != addresses;
            facts.addresses = addresses;
            changed
        });
    }

    /// There may be something to do since now.
    pub(super) fn tell_of_work(&self, now: Duration) {
        if self.has_work() {
            self.health.send_if_modified(|facts| {
                facts.behind_since.get_or_insert(now);
                false
            });
        }
    }

    /// The maps follow the sources.
    pub(super) fn tell_of_success(&self, now: Duration) {
        self.health.send_if_modified(|facts| {
            facts.updated = Some(now);
            facts.behind_since = None;
            let changed = facts.checks != self.checks;
            if changed {
                facts.checks.clone_from(&self.checks);
            }
            changed
        });
    }

    /// A Service or its endpoints have changed.
    pub(super) fn note_check(&mut self, name: &ServiceName) {
        let check = self.snapshot.service(name).and_then(|service| {
            let port = service.health_check_port?;
            let place = self.snapshot.place();
            let slices: Vec<_> = self.snapshot.slices_of(name).collect();
            let families = service.cluster_ips.iter().map(|it| Family::of(*it));
            let local_endpoints: BTreeMap<Family, usize> = families
                .map(|family| {
                    (
                        family,
                        desired::local_ready(service, &slices, family, place),
                    )
                })
                .collect();
            Some(Check {
                port,
                local_endpoints,
            })
        });
        match check {
            Some(check) => drop(self.checks.insert(name.clone(), check)),
            None => drop(self.checks.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        agent::{Event, Settings},
        convert,
        maps::faulty::{Fault, FaultyMaps},
        model::{Node, Place},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn agent(sources: &[Source]) -> Agent<FaultyMaps> {
        let settings = Settings {
            sources: sources.iter().copied().collect::<BTreeSet<_>>(),
            collect: Duration::ZERO,
            region_rest: SECOND,
            gone_grace: SECOND,
            backoff: (SECOND, SECOND),
            list_timeout: SECOND,
            place: Place {
                node: "here".to_owned(),
                addresses: vec!["192.0.2.1".parse().unwrap()],
                ..Place::default()
            },
        };
        Agent::new(settings, FaultyMaps::default()).unwrap()
    }

    fn service(name: &str, policy: &str) -> crate::model::Service {
        let object = json!({"metadata": {"name": name}, "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": 32000,
            "clusterIP": "10.96.0.1", "ports": [{"port": 80}, {"name": "other", "port": 81}],
        }});
        convert::service(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_node_is_eligible_while_it_is_known_and_not_about_to_leave() {
        let of_manifests = agent(&[Source::Manifests]);
        assert!(of_manifests.health().borrow().is_node_eligible);
        let mut agent = agent(&[Source::Services, Source::Node]);
        assert!(!agent.health().borrow().is_node_eligible, "not seen yet");
        for (leaving, expected) in [(Some(false), true), (Some(true), false), (None, false)] {
            let node = leaving.map(|leaving| {
                let node = Node {
                    leaving,
                    ..Node::default()
                };
                Box::new(node)
            });
            agent.handle(Event::NodeChanged(node), SECOND);
            assert_eq!(
                agent.health().borrow().is_node_eligible,
                expected,
                "{leaving:?}"
            );
        }
    }

    #[test]
    fn ready_endpoints_of_the_node_are_counted_once_where_the_policy_is_local() {
        let mut agent = agent(&[Source::Services, Source::EndpointSlices]);
        agent.handle(
            Event::ServicesListed(vec![
                service("local", "Local"),
                service("cluster", "Cluster"),
            ]),
            SECOND,
        );
        let mut slices = Vec::new();
        for (number, port) in ["", "other", "strange"].into_iter().enumerate() {
            let endpoint = |last: u8, node: &str, ready: bool| {
                json!({"addresses": [format!("10.244.1.{last}")], "nodeName": node,
                    "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
            };
            let mut endpoints = vec![
                endpoint(1, "here", true),
                endpoint(2, "there", true),
                endpoint(3, "here", false),
            ];
            // Nobody asks for the port of this slice.
            if port == "strange" {
                endpoints.push(endpoint(4, "here", true));
            }
            let object = json!({
                "metadata": {"name": format!("slice-{number}"), "labels": {"kubernetes.io/service-name": "local"}},
                "addressType": "IPv4", "ports": [{"name": port, "port": 8080}], "endpoints": endpoints,
            });
            let object = serde_json::from_value(object).unwrap();
            slices.push(convert::endpoint_slice(&object).unwrap());
        }
        agent.handle(Event::SlicesListed(slices), SECOND);
        assert!(
            agent.health().borrow().checks.is_empty(),
            "before it is in the maps"
        );
        agent.reconcile(&|| SECOND);
        let facts = agent.health().borrow().clone();
        let check = Check {
            port: 32000,
            local_endpoints: BTreeMap::from([(Family::V4, 1)]),
        };
        let expected = (ServiceName::new("default", "local"), check);
        assert_eq!(facts.checks, BTreeMap::from([expected]));
        assert_eq!(
            facts.addresses,
            BTreeSet::from(["192.0.2.1".parse().unwrap()])
        );
    }

    #[test]
    fn an_agent_is_behind_from_the_first_change_that_it_could_not_write() {
        let mut agent = agent(&[Source::Services]);
        let facts = agent.health();
        agent.handle(Event::ServicesListed(Vec::new()), SECOND);
        agent.reconcile(&|| SECOND);
        assert_eq!(facts.borrow().updated, Some(SECOND));
        assert_eq!(facts.borrow().behind_since, None);
        agent.maps_mut().faults.extend([Fault::Io; 50]);
        for seconds in 2..6 {
            let now = Duration::from_secs(seconds);
            agent.handle(
                Event::ServiceApplied(Box::new(service(&format!("s{seconds}"), "Local"))),
                now,
            );
            agent.reconcile(&|| now);
            assert_eq!(
                facts.borrow().behind_since,
                Some(2 * SECOND),
                "after {now:?}"
            );
        }
        assert_eq!(facts.borrow().updated, Some(SECOND));
        agent.maps_mut().faults.clear();
        agent.reconcile(&|| 9 * SECOND);
        assert_eq!(facts.borrow().behind_since, None);
        assert_eq!(facts.borrow().updated, Some(9 * SECOND));
    }
}
