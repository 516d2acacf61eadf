//! `waggle trace` over the maps of a running agent: the same answers as over the manifests that the agent reads, and what
//! real clients meet.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::agent_process::Agent;
use tests::cluster::agent_without_services::LoneAgent;
use tests::cluster::service_cluster::{
    HTTP_PORT, UDP_V4, UDP_V6, WEB_V4, WEB_V6, address, answer_of, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::scratch::Scratch;
use tests::require_root;
use tests::traffic::client::{http_gets, requests_to_meet_all};

fn answers(agent: &Agent, words: &str) -> Result<Vec<Value>> {
    let printed = agent.waggle(&format!("trace {words}"))?;
    let lines = printed.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

#[test]
fn live_maps_and_manifests_give_the_same_answers_and_stay_as_they_are() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 3)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&near, &far])?;
        let agent = cluster.agents.first().context("an agent")?;
        let node = [agent.node().v4().to_string(), agent.node().v6().to_string()];

        let mut questions = Vec::new();
        for place in ["pod", "outside", "host"] {
            for (proto, dst, src) in [
                ("tcp", WEB_V4, "10.244.1.9:40000"),
                ("tcp", WEB_V6, "[fd00:10:244:1::9]:40000"),
                ("udp", UDP_V4, "10.244.1.9:40001"),
                ("udp", UDP_V6, "[fd00:10:244:1::9]:40001"),
                ("tcp", UDP_V4, "10.244.1.9:40002"),
            ] {
                let question = json!({"in": place, "proto": proto, "src": src, "dst": dst});
                questions.push(question.to_string());
            }
        }
        // A pod that may become its own backend.
        for port in 40_003..40_019 {
            let src = format!("10.244.1.2:{port}");
            let question = json!({"in": "pod", "proto": "tcp", "src": src, "dst": WEB_V4});
            questions.push(question.to_string());
        }
        let scratch = Scratch::new()?;
        let file = scratch.write("questions", questions.join("\n"))?;
        let batch = format!("--batch {}", file.display());
        let words = format!(
            "--node-name {} --node-ip {} --node-ip {} {batch}",
            agent.node().name(),
            node[0],
            node[1],
        );

        let seen = || -> Result<[String; 3]> {
            Ok([
                agent.waggle("get services")?,
                agent.waggle("get backends -o json")?,
                agent.waggle("get flows -o json")?,
            ])
        };
        let before = seen()?;
        let live = answers(agent, &words)?;
        ensure!(seen()? == before, "asking has changed what is in the maps");
        let folder = cluster.state.path();
        let of_manifests = answers(agent, &format!("--manifests {} {words}", folder.display()))?;
        ensure!(live.len() == questions.len(), "{live:#?}");
        for (question, (live, other)) in questions.iter().zip(live.iter().zip(&of_manifests)) {
            ensure!(live == other, "{question}: {live:#} but {other:#}");
        }

        // The live node knows itself: its addresses need not be said.
        ensure!(answers(agent, &batch)? == live, "without --node-ip");
        let hairpin = live.iter().find(|answer| answer["masquerade"] == true);
        let hairpin = hairpin.context("a pod that is its own backend")?;
        let source = hairpin["source_after"].as_str().unwrap_or_default();
        ensure!(source.starts_with(&format!("{}:", node[0])), "{hairpin:#}");
        let words = format!("--proto tcp --src {}:40000 --dst {WEB_V4}", node[0]);
        let printed = agent.waggle(&format!("trace {words}"))?;
        ensure!(printed.contains("a process of the node"), "{printed}");

        // Whom it names as candidates, real clients reach, and nobody else.
        let candidates = [&near, &far].map(|server| server.pod.socket_v4(HTTP_PORT).to_string());
        ensure!(live[0]["candidates"] == json!(candidates), "{:#}", live[0]);
        let frontend = address(WEB_V4)?;
        let answers = http_gets(&client.namespace, frontend, requests_to_meet_all(2))?;
        let expected = [&near, &far].map(|server| answer_of(&server.pod, frontend));
        let met: BTreeSet<&String> = answers.keys().collect();
        ensure!(met == expected.iter().collect(), "{answers:?}");
        Ok(())
    })
}

#[test]
fn over_live_maps_the_node_is_what_the_agent_was_told() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let node = LoneAgent::start(&["--cluster-cidr", "10.44.0.0/16"])?;
    let asked = "trace --proto tcp --src 10.44.9.9:40000 --dst 10.96.0.1:80";
    let printed = node.agent.waggle(asked)?;
    let expected = "10.44.9.9 is in the cluster CIDR 10.44.0.0/16";
    ensure!(printed.contains(expected), "{printed}");
    // A flag counts for more.
    let printed = node
        .agent
        .waggle(&format!("{asked} --cluster-cidr 10.45.0.0/16"))?;
    ensure!(!printed.contains("is in the cluster CIDR"), "{printed}");
    Ok(())
}
