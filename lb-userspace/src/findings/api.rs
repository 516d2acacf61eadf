//! A finding as an Event of the API server.
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};

use super::{Finding, Reason};
use crate::model::ServiceName;

/// Who reports.
const CONTROLLER: &str = "waggle";

/// An Event's note has up to so many bytes.
const LONGEST_NOTE: usize = 1_024;

/// Whether other nodes would find the same.
fn is_of_this_node(reason: Reason) -> bool {
    match reason {
        Reason::NodePortInUse => true,
        Reason::InvalidService
        | Reason::InvalidEndpoints
        | Reason::NoRoom
        | Reason::FrontendTaken => false,
    }
}

/// The Event's name follows from the finding, so that of all nodes that find the same the first one's stands, whatever
/// they were built with: 64 bits of FNV-1a (draft-eastlake-fnv) over the words, each with a zero byte behind it.
pub(super) fn name(service: &ServiceName, uid: &str, finding: &Finding, node: &str) -> String {
    let of_node = is_of_this_node(finding.reason).then_some(node);
    let words = [uid, finding.reason.name(), &finding.key].into_iter();
    let bytes = words
        .chain(of_node)
        .flat_map(|word| word.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}.waggle-{hash:016x}", service.name)
}

/// The Event.
pub(super) fn event(
    service: &ServiceName,
    uid: &str,
    finding: &Finding,
    node: &str,
    now: Timestamp,
) -> Event {
    let mut note = format!("{}; {}", finding.warning.problem, finding.warning.remedy);
    // The Service is what the Event hangs on; another object is to be named.
    if finding.reason == Reason::InvalidEndpoints {
        note = format!("{}: {note}", finding.warning.subject);
    }
    if is_of_this_node(finding.reason) {
        note = format!("on node {node}: {note}");
    }
    let end = note.floor_char_boundary(LONGEST_NOTE);
    note.truncate(end);
    Event {
        metadata: ObjectMeta {
            namespace: Some(service.namespace.clone()),
            name: Some(name(service, uid, finding, node)),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(finding.reason.name().to_owned()),
        action: Some("Serve".to_owned()),
        note: Some(note),
        event_time: Some(MicroTime(now)),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(service.namespace.clone()),
            name: Some(service.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Warning;

    fn finding(reason: Reason, key: &str, problem: &str) -> Finding {
        Finding {
            reason,
            key: key.to_owned(),
            warning: Warning::new("EndpointSlice default/web-1", problem, "mend it"),
        }
    }

    #[test]
    fn nodes_that_find_the_same_give_the_event_one_name() {
        let service = ServiceName::new("default", "web");
        let of = |uid: &str, finding: &Finding, node: &str| name(&service, uid, finding, node);
        for (reason, shared) in [
            (Reason::InvalidService, true),
            (Reason::NoRoom, true),
            (Reason::NodePortInUse, false),
        ] {
            let first = of("uid", &finding(reason, "k", "here"), "node-1");
            let second = of("uid", &finding(reason, "k", "there"), "node-2");
            assert_eq!(first == second, shared, "{reason:?}");
        }
        let it = finding(Reason::InvalidService, "k", "");
        let other_key = finding(Reason::InvalidService, "other", "");
        let other_reason = finding(Reason::InvalidEndpoints, "k", "");
        let names = [
            of("uid", &it, ""),
            of("other", &it, ""),
            of("uid", &other_key, ""),
            of("uid", &other_reason, ""),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        // Another build of another compiler gives it the same name.
        assert_eq!(names[0], "web.waggle-fa4466aee04fa744");
    }

    #[test]
    fn a_note_is_as_long_as_the_api_server_takes_it_and_names_other_objects() {
        let service = ServiceName::new("default", "web");
        let long = "é".repeat(900);
        let finding = finding(Reason::InvalidEndpoints, "", &long);
        let event = event(&service, "uid", &finding, "node-1", Timestamp::UNIX_EPOCH);
        let note = event.note.unwrap();
        assert!(note.len() <= LONGEST_NOTE && note.starts_with("EndpointSlice default/web-1: é"));
    }
}
