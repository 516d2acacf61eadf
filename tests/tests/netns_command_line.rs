//! What `waggle` prints in a pipe, for each command in each format: the fields that scripts read, the
//! same in JSON as in YAML, and the same bytes when it is asked again.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_userspace::datapath::BpfRoot;
use serde_json::{Value, json};
use tests::cluster::agent_process::{Agent, program};
use tests::cluster::expect::ask_udp;
use tests::cluster::printed::{element, in_all_formats, row};
use tests::cluster::service_cluster::{
    HTTP_PORT, UDP_V6, WEB_V4, WEB_V6, address, answer_of, with_services,
};
use tests::cluster::topology::PodNetwork;
use tests::machine::netns::Namespace;
use tests::machine::scratch::{Scratch, unique_tag};
use tests::traffic::client::http_get_on;

#[test]
fn services_backends_and_flows_are_listed_in_every_format() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        let near = cluster.add_serving_pod(1, "near", 2)?;
        let far = cluster.add_serving_pod(2, "far", 3)?;
        let client = cluster.cluster.add_pod(1, "client", 9)?;
        cluster.start_agents(&[&near, &far])?;
        let frontend = address(WEB_V4)?;
        // A connection that stays open: its flow changes no more.
        let (mut stream, source) = client.namespace.run(|| {
            let stream = TcpStream::connect_timeout(&frontend, Duration::from_secs(10))?;
            let source = stream.local_addr()?;
            Ok((stream, source))
        })?;
        let answer =
            http_get_on(&mut stream, true).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        ask_udp(&client.namespace, address(UDP_V6)?, "hello")?;
        let served_by = if answer == answer_of(&near.pod, frontend) {
            &near
        } else {
            &far
        };
        let backend = served_by.pod.socket_v4(HTTP_PORT);
        let agent = cluster.agents.first().context("an agent")?;

        let id = backends(agent, backend, &served_by.pod.name, served_by.pod.node)?;
        services(agent, &id)?;
        flows(agent, source, frontend, backend, &id)?;
        status(agent)?;
        drop(stream);

        // Without the agent the maps still tell: by numbers, and a note that says so beside the output.
        let agent = cluster.agents.first_mut().context("an agent")?;
        agent.terminate()?;
        let (_, _, services) = in_all_formats(agent, "get services", [false; 4])?;
        let web = element(
            &services,
            &json!({"frontends": [WEB_V4], "protocol": "tcp"}),
        )?;
        ensure!(
            web["name"] == format!("#{}", web["id"]) && web["changedMs"].is_null(),
            "{web}"
        );
        let (_, _, backends) = in_all_formats(agent, "get backends", [false; 4])?;
        ensure!(element(&backends, &json!({"id": id, "family": "IPv4"}))?["pod"].is_null());
        Ok(())
    })
}

/// Checks what is said of one backend; gives its id.
fn backends(agent: &Agent, backend: SocketAddr, pod: &str, node: u8) -> Result<Value> {
    let (table, wide, list) = in_all_formats(agent, "get backends", [false; 4])?;
    let (backend, node) = (backend.to_string(), format!("node{node}"));
    let found = element(&list, &json!({"address": backend}))?;
    for (field, value) in [
        ("family", "IPv4"),
        ("state", "active"),
        ("pod", pod),
        ("node", &node),
    ] {
        ensure!(found[field] == value, "{field} of {found}");
    }
    let service = found["service"].as_str().context("the service's name")?;
    ensure!(
        service.starts_with("default/web") && service.ends_with("/tcp"),
        "{service}"
    );
    ensure!(
        list.as_array().is_some_and(|list| list.len() == 8),
        "{list:#}"
    );

    let cells = [service, &backend, "active", pod, &node];
    let header = "SERVICE ADDRESS STATE POD NODE";
    ensure!(row(&table, header, &[&backend])? == cells, "{table}");
    let numbers = [found["id"].to_string(), found["generation"].to_string()];
    let mut cells = cells.to_vec();
    cells.extend(numbers.iter().map(String::as_str));
    let header = format!("{header} ID GENERATION");
    ensure!(row(&wide, &header, &[&backend])? == cells, "{wide}");
    Ok(found["id"].clone())
}

fn services(agent: &Agent, backend: &Value) -> Result<()> {
    let (table, wide, list) = in_all_formats(agent, "get services", [false, true, true, true])?;
    for (frontend, family) in [(WEB_V4, "IPv4"), (WEB_V6, "IPv6")] {
        let service = element(&list, &json!({"frontends": [frontend], "protocol": "tcp"}))?;
        ensure!(
            service["name"] == "web" && service["namespace"] == "default",
            "{service}"
        );
        ensure!(
            service["family"] == family && service["changedMs"].is_u64(),
            "{service}"
        );
        ensure!(
            service["backends"]
                .as_array()
                .is_some_and(|ids| ids.len() == 2),
            "{service}"
        );
    }
    ensure!(
        list.as_array().is_some_and(|list| list.len() == 4),
        "{list:#}"
    );
    let web = element(&list, &json!({"frontends": [WEB_V4], "protocol": "tcp"}))?;
    ensure!(
        web["backends"]
            .as_array()
            .is_some_and(|ids| ids.contains(backend)),
        "{web}"
    );

    let parts = ["10.96.0.80", "/tcp"];
    let cells = row(&table, "NAMESPACE NAME ADDRESS PORT BACKENDS", &parts)?;
    ensure!(
        cells == ["default", "web", "10.96.0.80", "80/tcp", "2"],
        "{table}"
    );
    let header = "NAMESPACE NAME TYPE ADDRESS PORT TARGET BACKENDS CHANGED ID";
    let cells = row(&wide, header, &parts)?;
    let id = web["id"].to_string();
    let [
        namespace,
        name,
        kind,
        cluster_ip,
        port,
        target,
        count,
        changed,
        shown_id,
    ] = cells.as_slice()
    else {
        anyhow::bail!("{cells:?}");
    };
    ensure!(
        [*namespace, *name, *kind] == ["default", "web", "ClusterIP"],
        "{cells:?}"
    );
    ensure!(
        *cluster_ip == "10.96.0.80" && port.ends_with("80/tcp"),
        "{cells:?}"
    );
    ensure!(
        [*target, *count, *shown_id] == ["8080", "2", &id],
        "{cells:?}"
    );
    ensure!(changed.ends_with("s ago"), "{cells:?}");
    Ok(())
}

fn flows(
    agent: &Agent,
    source: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    backend_id: &Value,
) -> Result<()> {
    let (table, wide, list) = in_all_formats(agent, "get flows", [true; 4])?;
    let (source, frontend) = (source.to_string(), frontend.to_string());
    let backend = backend.to_string();
    let request = json!({"source": source, "destination": frontend});
    let request = element(&list, &request)?;
    for (field, value) in [
        ("protocol", json!("tcp")),
        ("rewrites", json!("destination")),
        ("becomes", json!(backend)),
        ("proven", json!(true)),
        ("backendId", backend_id.clone()),
    ] {
        ensure!(request[field] == value, "{field} of {request}");
    }
    ensure!(
        request["idleSeconds"]
            .as_u64()
            .is_some_and(|idle| idle < 600),
        "{request}"
    );
    let flags = request["flags"].as_array().context("flags")?;
    ensure!(
        flags.contains(&json!("request")) && flags.contains(&json!("replied")),
        "{request}"
    );
    let reply = json!({"source": backend, "destination": source, "rewrites": "source"});
    ensure!(
        element(&list, &reply)?["becomes"] == frontend.as_str(),
        "{list:#}"
    );
    element(&list, &json!({"protocol": "udp", "destination": UDP_V6}))?;

    let header = "PROTOCOL SOURCE DESTINATION REWRITES BECOMES SERVICE FLAGS IDLE";
    let parts = [source.as_str(), &frontend, "destination"];
    let cells = row(&table, header, &parts)?;
    let expected = [
        "tcp",
        &source,
        &frontend,
        "destination",
        &backend,
        "default/web:tcp-80/tcp",
    ];
    ensure!(
        cells.starts_with(&expected) && cells.len() == 8,
        "{cells:?}"
    );
    let cells = row(
        &wide,
        &format!("{header} OTHER-PORT TABLE BACKEND-ID"),
        &parts,
    )?;
    let id = backend_id.to_string();
    ensure!(
        cells.starts_with(&expected) && cells.ends_with(&["flows", &id]),
        "{cells:?}"
    );
    Ok(())
}

fn status(agent: &Agent) -> Result<()> {
    let (table, _, status) = in_all_formats(agent, "status", [true; 4])?;
    ensure!(status["agent"]["pid"].is_u64(), "{status:#}");
    let devices = element(&status["agent"]["devices"], &json!({"name": "eth0"}))?;
    ensure!(
        devices["hooks"]
            .as_array()
            .is_some_and(|hooks| hooks.len() == 2),
        "{devices}"
    );
    ensure!(
        element(&status["maps"], &json!({"name": "FLOWS_V4"})).is_ok(),
        "{status:#}"
    );
    ensure!(
        table.contains("eth0") && table.contains("FLOWS_V4"),
        "{table}"
    );
    Ok(())
}

#[test]
fn the_probe_tells_what_the_kernel_can_do_and_changes_nothing() -> Result<()> {
    with_services(PodNetwork::Routed, |cluster| {
        cluster.start_agents(&[])?;
        let agent = cluster.agents.first().context("an agent")?;
        let (table, _, probe) = in_all_formats(agent, "probe", [false; 4])?;
        let kernel = nix::sys::utsname::uname()?;
        ensure!(probe["kernel"]["release"] == kernel.release().to_string_lossy().as_ref());
        ensure!(
            probe["mayLoad"] == true && probe["bpfFileSystem"] == true,
            "{probe:#}"
        );
        ensure!(
            probe["kernel"]["tcx"] == tests::cluster::agent_without_services::has_tcx(),
            "{probe:#}"
        );
        let eth0 = element(&probe["devices"], &json!({"name": "eth0"}))?;
        let would = eth0["wouldAttach"].as_str().unwrap_or_default();
        ensure!(would.starts_with("by ") && eth0["kind"] == "veth", "{eth0}");
        ensure!(
            table.starts_with("ABILITY") && table.contains("eth0"),
            "{table}"
        );
        let (_, _, picky) = in_all_formats(agent, "probe --pod-interfaces !eth0", [false; 4])?;
        let eth0 = element(&picky["devices"], &json!({"name": "eth0"}))?;
        ensure!(
            eth0["wouldAttach"]
                .as_str()
                .is_some_and(|why| why.starts_with("no: ")),
            "{eth0}"
        );
        Ok(())
    })
}

#[test]
fn completions_know_every_command_and_are_the_same_every_time() -> Result<()> {
    if !tests::require_root() {
        return Ok(());
    }
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let print = || -> Result<String> {
            let output = Command::new(program()?)
                .args(["completions", shell])
                .output()?;
            ensure!(output.status.success(), "{shell}: {}", output.status);
            Ok(String::from_utf8(output.stdout)?)
        };
        let script = print()?;
        for word in [
            "run",
            "status",
            "get",
            "probe",
            "trace",
            "cleanup",
            "bpf-root",
            "manifests",
            "cluster-cidr",
        ] {
            ensure!(script.contains(word), "the script for {shell} lacks {word}");
        }
        ensure!(print()? == script, "{shell}");
    }
    Ok(())
}

#[test]
fn a_bpf_file_system_that_was_mounted_for_an_ordinary_folder_goes_with_the_clean_up() -> Result<()>
{
    if !tests::require_root() {
        return Ok(());
    }
    let namespace = Namespace::new(&unique_tag())?;
    let folder = Scratch::new()?;
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    std::fs::create_dir(&theirs)?;
    let mount = |words: &[&str]| {
        Command::new(words[0])
            .args(&words[1..])
            .arg(&theirs)
            .status()
    };
    ensure!(mount(&["mount", "-t", "bpf", "bpf"])?.success());
    for (root, stays) in [(&ours, false), (&theirs, true)] {
        BpfRoot::new(root).prepare()?;
        let is_mounted = || -> Result<bool> {
            let mounts = std::fs::read_to_string("/proc/self/mounts")?;
            Ok(mounts.contains(&format!(" {} bpf ", root.display())))
        };
        ensure!(is_mounted()?, "{} is no mount", root.display());
        let mut cleanup = namespace.command(program()?);
        cleanup.arg("cleanup").arg("--bpf-root").arg(root);
        let output = cleanup
            .arg("--run-dir")
            .arg(folder.path().join("run"))
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        ensure!(is_mounted()? == stays, "{}: {output:?}", root.display());
        ensure!(root.exists() == stays, "{}", root.display());
    }
    ensure!(mount(&["umount"])?.success());
    Ok(())
}
