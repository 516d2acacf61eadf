//! What the agent tells others: the log, the answers to health checks, Events, the node ports.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::watch;
use tracing::warn;

use crate::{
    agent::{knowledge::Knowledge, logged::Logged},
    findings::{About, Findings, node_ports::NodePorts},
    health::{Check, Facts},
    model::{ServiceName, Warning},
};

/// What was published last. Receivers hear of changes.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    logged: Logged,
    /// The warnings about the node and its `ServiceCIDR`s that are logged.
    logged_of_node: Vec<Warning>,
    /// Services with a port for health checks, as of the last plan that was begun.
    checks: BTreeMap<ServiceName, Check>,
    pub(super) health: watch::Sender<Facts>,
    pub(super) findings: watch::Sender<Findings>,
    pub(super) node_ports: watch::Sender<NodePorts>,
}

impl Publisher {
    /// Logs the warnings about the node that are new.
    pub(super) fn log_node(&mut self, warnings: Vec<Warning>) {
        for news in warnings
            .iter()
            .filter(|it| !self.logged_of_node.contains(it))
        {
            warn!("{news}");
        }
        self.logged_of_node = warnings;
    }

    /// Logs the warnings about a Service that are new.
    pub(super) fn log_service(&mut self, name: &ServiceName, warnings: BTreeSet<Warning>) {
        for warning in self.logged.news(name, warnings) {
            warn!("{warning}");
        }
    }

    /// Publishes the findings about a Service.
    pub(super) fn file(&self, name: &ServiceName, about: About) {
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

    /// The node, its place or its addresses may have changed.
    pub(super) fn node(&self, knowledge: &Knowledge) {
        let addresses = knowledge.node_port_addresses();
        self.node_ports.send_if_modified(|all| {
            let changed = all.addresses != addresses;
            all.addresses.clone_from(&addresses);
            changed
        });
        let addresses = knowledge.health_check_addresses();
        self.health.send_if_modified(|facts| {
            facts.is_node_eligible = knowledge.is_node_eligible();
            let changed = facts.addresses != addresses;
            facts.addresses = addresses;
            changed
        });
    }

    /// A plan that looks at this Service begins.
    pub(super) fn service(&mut self, knowledge: &Knowledge, name: &ServiceName) {
        match knowledge.check(name) {
            Some(check) => drop(self.checks.insert(name.clone(), check)),
            None => drop(self.checks.remove(name)),
        }
        let (uid, ports) = knowledge.node_ports(name);
        self.node_ports
            .send_if_modified(|all| all.set(name, uid, ports));
    }

    /// The maps are behind the sources since `now`, if they were not before.
    pub(super) fn behind(&self, now: Duration) {
        self.health.send_if_modified(|facts| {
            facts.behind_since.get_or_insert(now);
            false
        });
    }

    /// The maps follow the sources.
    pub(super) fn up_to_date(&self, now: Duration) {
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
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        agent::{Agent, Event, Settings, Source},
        convert,
        maps::faulty::{Fault, FaultyMaps},
        model::{Family, Node, Place, Unreadable},
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
            node_device: None,
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

    #[test]
    fn a_service_that_cannot_be_read_keeps_its_last_good_state_and_is_a_finding() {
        let mut agent = agent(&[Source::Services]);
        let names = |agent: &Agent<FaultyMaps>| -> BTreeSet<String> {
            let view = agent.view(SECOND);
            view.services.into_iter().map(|it| it.name).collect()
        };
        let uids = |agent: &Agent<FaultyMaps>| -> Vec<String> {
            let all = agent.findings().borrow().clone().into_iter();
            let own = all.filter(|(name, _)| name.name == "one");
            own.map(|(_, about)| about.uid).collect()
        };
        let unreadable = |uid: &str| {
            let name = ServiceName::new("default", "one");
            Event::Unreadable {
                source: Source::Services,
                objects: vec![Unreadable {
                    service: Some(name.clone()),
                    name,
                    uid: uid.to_owned(),
                    warning: Warning::new("Service default/one", "cannot be read", "correct it"),
                }],
            }
        };
        let two = |agent: &mut Agent<FaultyMaps>| {
            let services = vec![service("two", "Local")];
            agent.handle(Event::ServicesListed(services), SECOND);
            agent.reconcile(&|| SECOND);
        };
        let services = vec![service("one", "Local"), service("two", "Local")];
        agent.handle(Event::ServicesListed(services), SECOND);
        agent.reconcile(&|| SECOND);
        agent.handle(unreadable(""), SECOND);
        two(&mut agent);
        assert_eq!(names(&agent), ["one", "two"].map(str::to_owned).into());
        let told = agent.view(SECOND).warnings;
        assert!(
            told.iter().any(|it| it.problem == "cannot be read"),
            "{told:?}"
        );
        assert_eq!(uids(&agent), [""]);
        // Another Service of that name: what is known is not about it.
        agent.handle(unreadable("other"), SECOND);
        two(&mut agent);
        assert_eq!(names(&agent), BTreeSet::from(["two".to_owned()]));
        assert_eq!(uids(&agent), ["other"]);
        let nothing = Event::Unreadable {
            source: Source::Services,
            objects: Vec::new(),
        };
        agent.handle(nothing, SECOND);
        assert_eq!(uids(&agent), [""; 0]);
    }
}
