//! `waggle trace` as a program: every file in `tests/questions`, and what no file can hold.
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{
    cluster::questions::{play, trace},
    machine::scratch::Scratch,
};

macro_rules! questions {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() -> Result<()> {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("questions");
            play(&folder.join(concat!(stringify!($name), ".txt")))
        })*

        #[test]
        fn every_file_of_questions_is_asked() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("questions");
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let mut asked = [$(concat!(stringify!($name), ".txt")),*];
            asked.sort_unstable();
            assert_eq!(files, asked);
        }
    };
}

questions! {
    addresses
    affinity
    batch
    linter
    my_service_example
    no_endpoints
    no_node_address
    outside
    senders
    service_cidrs
}

/// One question about many Services, asked so often that flows which stayed behind would meet.
#[test]
fn the_same_question_has_the_same_answer_however_often_it_is_asked() -> Result<()> {
    let folder = Scratch::new()?;
    let addresses: Vec<String> = (1..=200).map(|pod| format!("10.244.1.{pod}")).collect();
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address]}))
        .collect();
    let service = json!({"kind": "Service", "metadata": {"name": "web"}, "spec": {
        "clusterIP": "10.96.0.80", "externalIPs": ["203.0.113.80"], "ports": [{"port": 80}]}});
    let slice = json!({"kind": "EndpointSlice", "metadata": {"name": "web-1",
        "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"port": 8080}], "endpoints": endpoints});
    folder.write("web.json", format!("{service}\n{slice}\n"))?;
    let question = |place: &str, port: u16| json!({"in": place, "proto": "tcp", "src": format!("198.51.100.7:{port}"), "dst": "203.0.113.80:80"});
    let ports = (1024..1224).chain(1024..1224);
    let questions: Vec<String> = ports
        .flat_map(|port| [question("outside", port), question("host", port)])
        .map(|question| question.to_string())
        .collect();
    folder.write("questions", questions.join("\n"))?;
    let output = trace(
        folder.path(),
        ["--node-ip", "192.0.2.1", "--batch", "questions"],
    )?;
    ensure!(output.status.success(), "{output:?}");
    let answers: Vec<Value> = std::str::from_utf8(&output.stdout)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(answers.len() == questions.len(), "{}", answers.len());
    let (first, again) = answers.split_at(answers.len() / 2);
    ensure!(first == again, "answers depend on earlier questions");

    let mut candidates: Vec<String> = addresses
        .iter()
        .map(|address| format!("{address}:8080"))
        .collect();
    candidates.sort();
    let mut chosen = std::collections::BTreeSet::new();
    for answer in &answers {
        ensure!(answer["verdict"] == "dnat", "{answer}");
        ensure!(answer["candidates"] == json!(candidates), "{answer}");
        chosen.insert(answer["backend"].as_str().context("a backend")?);
    }
    // 400 draws among 200 leave 27 out on average.
    ensure!(
        chosen.len() > 100,
        "only {} backends are chosen",
        chosen.len()
    );
    Ok(())
}

/// A Service of 5,000 ports with ten endpoints, and one whose slice has a thousand.
#[test]
fn a_service_of_many_ports_and_one_of_many_endpoints_are_served_beside_others() -> Result<()> {
    let folder = Scratch::new()?;
    let slice = |service: &str, pods: u16, ports: Value| {
        let endpoints = (0..pods).map(|pod| {
            let [high, low] = pod.to_be_bytes();
            json!({"addresses": [format!("10.244.{high}.{low}")]})
        });
        let endpoints: Vec<Value> = endpoints.collect();
        json!({"kind": "EndpointSlice", "metadata": {"name": service,
            "labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
            "ports": ports, "endpoints": endpoints})
    };
    let service = |name: &str, address: &str, ports: Value| json!({"kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": address, "ports": ports}});
    let ports: Vec<Value> = (1..=5_000)
        .map(|port| json!({"name": format!("p{port}"), "port": port}))
        .collect();
    let (many, one) = (json!(ports), json!([{"port": 80}]));
    let objects = [
        service("ports", "10.96.0.1", many.clone()),
        slice("ports", 10, many),
        service("endpoints", "10.96.0.2", one.clone()),
        slice("endpoints", 1_000, one.clone()),
        service("other", "10.96.0.3", one.clone()),
        slice("other", 3, one),
    ];
    folder.write("all.json", objects.map(|it| it.to_string()).join("\n"))?;
    let asked = [
        "10.96.0.1:1",
        "10.96.0.1:5000",
        "10.96.0.2:80",
        "10.96.0.3:80",
    ];
    let questions = asked.map(|to| {
        json!({"in": "pod", "proto": "tcp", "src": "10.244.9.9:40000", "dst": to}).to_string()
    });
    folder.write("questions", questions.join("\n"))?;
    let output = trace(folder.path(), ["--batch", "questions"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    let answers: Vec<Value> = std::str::from_utf8(&output.stdout)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let candidates = answers
        .iter()
        .map(|it| it["candidates"].as_array().map(Vec::len));
    ensure!(
        candidates.eq([10, 10, 1_000, 3].map(Some)),
        "{:?}",
        answers
            .iter()
            .map(|it| it["candidates"].as_array().map(Vec::len))
            .collect::<Vec<_>>()
    );
    Ok(())
}
