use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::agent::Source;

/// An API server that answers everything so, and counts how often it is asked for `ServiceCIDR`s.
fn api_server(code: u16, reason: &'static str, answer: &Value) -> (Client, Arc<AtomicUsize>) {
    let body = answer.to_string();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // It ends with the test's process.
    std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let is_ours =
                request[..length].starts_with(b"GET /apis/networking.k8s.io/v1/servicecidrs?");
            counter.fetch_add(usize::from(is_ours), Ordering::Relaxed);
            let answer = format!(
                "HTTP/1.1 {code} {reason}\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    (Client::try_from(config).unwrap(), asked)
}

/// What the agent is told within a second about `ServiceCIDR`s: the texts of all warnings that hold, or how many objects
/// there are.
async fn told(code: u16, reason: &'static str) -> (Vec<String>, usize) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "so it is", "reason": reason, "code": code,
    });
    let (client, asked) = api_server(code, reason, &status);
    let (events, mut received) = mpsc::channel(16);
    let config = watcher::Config::default();
    let follow = Follow::<ServiceCidr>::new(&client, config, Vec::new(), &events);
    let follow = tokio::spawn(follow.run());
    drop(events);
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), received.recv()).await {
        if let Event::Trouble { source, warnings } = event {
            assert_eq!(source, Source::ServiceCidrs);
            let warnings = warnings.iter().map(ToString::to_string);
            told.push(warnings.collect::<Vec<_>>().join("\n"));
        } else if let Event::ServiceCidrsListed(objects) = event {
            told.push(format!("{} objects", objects.len()));
        } else {
            panic!("{event:?}");
        }
    }
    drop(received);
    let ended = timeout(Duration::from_secs(5), follow).await;
    drop(ended.expect("it ends with its receiver").unwrap());
    (told, asked.load(Ordering::Relaxed))
}

#[tokio::test]
async fn an_api_server_without_service_cidrs_is_no_trouble() {
    let (told, asked) = told(404, "NotFound").await;
    assert_eq!(told, ["", "0 objects"]);
    assert_eq!(asked, 1, "it is asked again and again");
}

#[tokio::test]
async fn who_may_not_read_service_cidrs_says_so_and_goes_on() {
    let (told, asked) = told(403, "Forbidden").await;
    let [nothing, warning, list] = told.as_slice() else {
        panic!("{told:#?}");
    };
    assert_eq!((nothing.as_str(), list.as_str()), ("", "0 objects"));
    for part in [
        "read service CIDRs",
        "--service-cidr alone",
        "so it is",
        "rbac.yaml",
    ] {
        assert!(warning.contains(part), "no `{part}` in {warning}");
    }
    assert_eq!(asked, 1, "it is asked again and again");
}

#[tokio::test]
async fn without_any_answer_nobody_goes_on() {
    let (told, asked) = told(500, "InternalError").await;
    assert!(told.iter().all(|it| it != "0 objects"), "{told:#?}");
    assert!(asked > 1, "asked {asked} times");
}

#[tokio::test]
async fn unreadable_objects_of_a_list_are_reported_and_the_others_are_listed() {
    let wrong = [
        json!({"spec": 5}),
        json!({"status": 7}),
        json!({"spec": {"ports": {}}}),
    ];
    let items = (0..100).map(|number| {
        let mut item = wrong.get(number).cloned().unwrap_or_else(|| json!({}));
        item["metadata"] = json!({"name": format!("s{number}"), "namespace": "shop", "uid": "7"});
        item
    });
    let list = json!({
        "kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
        "items": items.collect::<Vec<_>>(),
    });
    let (client, _) = api_server(200, "OK", &list);
    let (events, mut received) = mpsc::channel(16);
    let follow = Follow::<Service>::new(&client, watcher::Config::default(), Vec::new(), &events);
    let follow = tokio::spawn(follow.run());
    let mut next = async || {
        timeout(Duration::from_secs(5), received.recv())
            .await
            .unwrap()
    };
    assert!(matches!(next().await, Some(Event::Trouble { .. })));
    let Some(Event::Unreadable { source, objects }) = next().await else {
        panic!("no event for the unreadable objects");
    };
    assert_eq!(source, Source::Services);
    let names: Vec<String> = objects.iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["shop/s0", "shop/s1", "shop/s2"]);
    for object in &objects {
        assert_eq!(object.uid, "7");
        assert_eq!(object.service.as_ref(), Some(&object.name));
        assert!(
            object
                .warning
                .problem
                .contains("cannot be read: invalid type"),
            "{object:?}"
        );
    }
    let Some(Event::ServicesListed(services)) = next().await else {
        panic!("no list");
    };
    assert_eq!(services.len(), 97);
    follow.abort();
}
