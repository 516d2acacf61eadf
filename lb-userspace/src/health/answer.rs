//! The answers, to the byte those of kube-proxy (its package `pkg/proxy/healthcheck`).
use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::Facts;
use crate::model::{Family, ServiceName};

/// An answer as it goes out.
pub(super) type Answer = Response<Full<Bytes>>;

/// How many endpoints stand behind a node, for load balancers that weigh nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What Go says of a time that was never set.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// This moment, on two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Since the agent's start.
    pub(super) since_start: Duration,
    /// For people.
    pub(super) time: Timestamp,
}

/// `/healthz` and `/livez`; other paths have nothing.
pub(super) fn agent(path: &str, facts: &Facts, now: Now) -> Answer {
    match path {
        "/healthz" => health(facts, Some(facts.is_node_eligible), now),
        "/livez" => health(facts, None, now),
        _ => {
            let mut answer = json(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, text);
            answer
        }
    }
}

/// The keys and their order are kube-proxy's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<Family, FamilyStatus>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyStatus {
    last_updated: String,
    healthy: bool,
}

fn health(facts: &Facts, node_eligible: Option<bool>, now: Now) -> Answer {
    let healthy = facts.is_healthy(now.since_start);
    let time = now.time.to_string();
    let updated = facts.updated.map(|updated| {
        let age = now.since_start.saturating_sub(updated);
        now.time.checked_sub(age).unwrap_or(now.time).to_string()
    });
    let families = Family::ALL.into_iter().filter_map(|family| {
        let last_updated = updated.clone()?;
        Some((
            family,
            FamilyStatus {
                last_updated,
                healthy,
            },
        ))
    });
    let status = families.collect();
    let is_good = healthy && node_eligible.unwrap_or(true);
    let body = Body {
        // A good answer's time is always fresh: whoever compares it with the clock has done so since before there was
        // a difference.
        last_updated: if is_good {
            time.clone()
        } else {
            updated.unwrap_or_else(|| NEVER.to_owned())
        },
        current_time: time,
        node_eligible,
        healthy,
        status,
    };
    json(
        code(is_good),
        serde_json::to_string(&body).unwrap_or_default(),
    )
}

/// A Service's health check, whatever the path: whether this node has somebody to serve it.
pub(super) fn service(name: &ServiceName, local_endpoints: usize, is_healthy: bool) -> Answer {
    let [namespace, name] = [&*name.namespace, &*name.name].map(serde_json::Value::from);
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace},\n\t\t\"name\": {name}\n\t}},\n\
         \t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {is_healthy}\n}}"
    );
    let mut answer = json(code(local_endpoints > 0 && is_healthy), body);
    answer
        .headers_mut()
        .insert(WEIGHT, HeaderValue::from(local_endpoints));
    answer
}

fn code(is_good: bool) -> StatusCode {
    if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn text(answer: Answer) -> (u16, String) {
        let status = answer.status().as_u16();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let body = runtime.unwrap().block_on(answer.into_body().collect());
        (
            status,
            String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap(),
        )
    }

    fn at(seconds: u64) -> Now {
        Now {
            since_start: Duration::from_secs(seconds),
            time: "2026-05-01T12:10:00.25Z".parse().unwrap(),
        }
    }

    #[test]
    fn an_agent_is_healthy_unless_a_change_waits_for_a_minute() {
        let facts = |updated: Option<u64>, behind_since: Option<u64>| Facts {
            is_node_eligible: true,
            updated: updated.map(Duration::from_secs),
            behind_since: behind_since.map(Duration::from_secs),
            ..Facts::default()
        };
        let good = r#"{"lastUpdated":"2026-05-01T12:10:00.25Z","currentTime":"2026-05-01T12:10:00.25Z","healthy":true"#;
        let of_families = |healthy: bool| {
            let status =
                format!(r#"{{"lastUpdated":"2026-05-01T12:08:20.25Z","healthy":{healthy}}}"#);
            format!(r#","status":{{"IPv4":{status},"IPv6":{status}}}}}"#)
        };
        let cases = [
            (facts(None, None), 200, format!("{good}}}")),
            (facts(None, Some(0)), 200, format!("{good}}}")),
            (
                facts(Some(500), None),
                200,
                format!("{good}{}", of_families(true)),
            ),
            (
                facts(Some(500), Some(541)),
                200,
                format!("{good}{}", of_families(true)),
            ),
            (
                facts(Some(500), Some(540)),
                503,
                format!(
                    r#"{{"lastUpdated":"2026-05-01T12:08:20.25Z","currentTime":"2026-05-01T12:10:00.25Z","healthy":false{}"#,
                    of_families(false)
                ),
            ),
        ];
        for (facts, status, body) in cases {
            assert_eq!(
                text(agent("/livez", &facts, at(600))),
                (status, body.clone()),
                "{facts:?}"
            );
            let with_node = body.replacen(",\"healthy\"", ",\"nodeEligible\":true,\"healthy\"", 1);
            assert_eq!(
                text(agent("/healthz", &facts, at(600))),
                (status, with_node),
                "{facts:?}"
            );
        }
    }

    #[test]
    fn a_node_that_leaves_is_unhealthy_and_its_agent_lives() {
        let starting = Facts::default();
        let (status, body) = text(agent("/healthz", &starting, at(1)));
        let expected = r#"{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2026-05-01T12:10:00.25Z","nodeEligible":false,"healthy":true}"#;
        assert_eq!((status, body.as_str()), (503, expected));
        assert_eq!(text(agent("/livez", &starting, at(1))).0, 200);
    }

    #[test]
    fn a_service_is_healthy_where_it_has_endpoints() {
        let name = ServiceName::new("ns", "svc");
        for (count, is_healthy, status) in [(1, true, 200), (0, true, 503), (2, false, 503)] {
            let answer = service(&name, count, is_healthy);
            assert_eq!(
                answer.headers()["X-Load-Balancing-Endpoint-Weight"],
                count.to_string()
            );
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            let body = format!(
                "{{
\t\"service\": {{
\t\t\"namespace\": \"ns\",
\t\t\"name\": \"svc\"
\t}},
\t\"localEndpoints\": {count},
\t\"serviceProxyHealthy\": {is_healthy}
}}"
            );
            assert_eq!(text(answer), (status, body));
        }
    }

    #[test]
    fn other_paths_of_the_agent_have_nothing() {
        for path in ["/", "/healthz/", "/metrics"] {
            let answer = agent(path, &Facts::default(), at(1));
            assert_eq!(
                answer.headers()[header::CONTENT_TYPE],
                "text/plain; charset=utf-8"
            );
            assert_eq!(
                text(answer),
                (404, "404 page not found\n".to_owned()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_string() {
        let name = ServiceName::new("a\"b", "c\\\n");
        let (_, body) = text(service(&name, 1, true));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["service"]["namespace"], "a\"b");
        assert_eq!(body["service"]["name"], "c\\\n");
    }
}
