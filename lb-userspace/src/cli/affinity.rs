//! `waggle get affinity`.
use super::table::{Rows, span};
use crate::{agent::View, flows::affinity::AffinityView};

/// Gives each service its name, where the agent says one. An id can belong to another Service since: what is not known to be
/// of this one gets no name.
pub(super) fn name(all: &mut [AffinityView], view: &View) {
    let names = view.port_names();
    for it in all.iter_mut().filter(|it| it.is_current) {
        it.service = names.get(&(it.family, it.service_id)).cloned();
    }
}

pub(super) fn rows(all: &[AffinityView], wide: bool) -> Rows {
    let mut header = vec!["CLIENT", "SERVICE", "BACKEND", "IDLE", "REMAINING"];
    if wide {
        header.extend(["FAMILY", "SERVICE-ID", "BACKEND-ID"]);
    }
    let mut rows = Rows::new(&header);
    for it in all {
        let client = it.client.map(|client| client.to_string());
        let service = it.service.clone();
        let backend = it.backend.map(|backend| backend.to_string());
        let remaining = it.remaining_seconds.map(|left| span(left.into()));
        let mut row = vec![
            client.unwrap_or_else(|| "(this node)".to_owned()),
            service.unwrap_or_else(|| format!("#{}", it.service_id)),
            backend.unwrap_or_else(|| "(has left)".to_owned()),
            span(it.idle_seconds.into()),
            remaining.unwrap_or_else(|| "over".to_owned()),
        ];
        if wide {
            row.extend([
                it.family.to_string(),
                it.service_id.to_string(),
                it.backend_id.to_string(),
            ]);
        }
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;

    #[test]
    fn a_client_stands_with_its_service_and_what_is_over_says_so() {
        let entry = |client: Option<&str>, remaining| AffinityView {
            family: Family::V4,
            client: client.map(|it| it.parse().unwrap()),
            service: None,
            service_id: 7,
            is_current: true,
            backend_id: 1,
            backend: Some("10.244.1.2:80".parse().unwrap()),
            idle_seconds: 5,
            remaining_seconds: remaining,
        };
        let of_earlier_service = AffinityView {
            is_current: false,
            ..entry(Some("10.244.1.7"), None)
        };
        let mut all = [
            entry(Some("10.244.1.9"), Some(55)),
            entry(None, None),
            of_earlier_service,
        ];
        let text = rows(&all, false).text();
        assert!(text.contains("10.244.1.9    #7"), "{text}");
        let service = crate::agent::view::ServiceView {
            id: 7,
            namespace: "default".to_owned(),
            name: "door".to_owned(),
            kind: None,
            port: "http".to_owned(),
            protocol: "tcp".to_owned(),
            family: Family::V4,
            cluster_ip: None,
            health_check_port: None,
            frontends: Vec::new(),
            taken: Vec::new(),
            backends: Vec::new(),
            no_backends_because: None,
            changed_ms: None,
        };
        let view = View {
            services: vec![service],
            ..View::default()
        };
        name(&mut all, &view);
        let text = rows(&all, true).text();
        for part in [
            "default/door:http/tcp",
            "55s",
            "(this node)",
            "over",
            "10.244.1.7    #7",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}
