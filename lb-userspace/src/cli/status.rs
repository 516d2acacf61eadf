//! `waggle status`.
use std::io;

use anyhow::Result;
use clap::Args;

use super::{
    Format, Paths, devices,
    table::{Rows, span},
};
use crate::{
    agent::{View, view::ServiceView},
    datapath::BpfRoot,
    status::{
        AgentState, Status, UNSUPPORTED,
        client::{Asked, ask},
        fill,
    },
};

/// Of the services without backends so many are listed.
const IDLE: usize = 20;

/// What `status` is asked.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: Paths,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Prints the status; true if the agent is ready.
pub(super) fn status(arguments: &Arguments) -> Result<bool> {
    let root = arguments.paths.root();
    let (agent, agent_missing) = match ask(&arguments.paths.run_dir)? {
        Asked::Answered(state) => (Some(*state), None),
        Asked::NotRunning(why) => (None, Some(why)),
    };
    let folder = root.maps();
    let mut unreadable = Vec::new();
    let mut note = |what: &str, error: io::Error| {
        unreadable.push(format!("cannot read {what}: {error}"));
    };
    let status = Status {
        pinned_links: there("the pinned links", BpfRoot::pins(&root.links()), &mut note),
        // Without pinned maps there is nothing to count.
        maps: there("the maps", fill::maps(&folder), &mut note),
        counters: there("the counters", fill::counters(&folder), &mut note),
        unreadable,
        unsupported: UNSUPPORTED.iter().map(|item| (*item).to_owned()).collect(),
        agent,
        agent_missing,
    };
    super::print(arguments.output, &status, |wide| text(&status, wide))?;
    Ok(status.agent.is_some_and(|agent| agent.is_ready()))
}

/// What was read, or nothing if it is not there; any other error is noted.
fn there<T: Default>(what: &str, read: io::Result<T>, note: &mut impl FnMut(&str, io::Error)) -> T {
    read.unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            note(what, error);
        }
        T::default()
    })
}

fn text(status: &Status, wide: bool) -> String {
    let mut text = String::new();
    if let Some(agent) = &status.agent {
        agent_text(&mut text, agent, wide);
    } else {
        let why = status.agent_missing.as_deref().unwrap_or_default();
        line(&mut text, "Agent", why);
        line(
            &mut text,
            "Pinned",
            &match status.pinned_links.len() {
                0 => "no links: nothing of ours is attached".to_owned(),
                count => format!(
                    "{count} links: the kernel goes on serving what the maps say ({})",
                    status.pinned_links.join(" ")
                ),
            },
        );
    }
    for problem in &status.unreadable {
        line(&mut text, "Kernel", problem);
    }
    maps_text(&mut text, status, wide);
    if wide {
        section(&mut text, "Not supported in this version");
        for item in &status.unsupported {
            line(&mut text, " ", item);
        }
    }
    text
}

fn agent_text(text: &mut String, agent: &AgentState, wide: bool) {
    let view = &agent.view;
    line(
        text,
        "Agent",
        &format!(
            "{}, version {}, pid {}, node {}, up {}",
            if agent.is_ready() {
                "ready"
            } else {
                "not ready"
            },
            agent.version,
            agent.pid,
            agent.node_name,
            span(agent.uptime_seconds)
        ),
    );
    for obstacle in agent.obstacles() {
        line(text, " ", &obstacle);
    }
    for source in &view.sources {
        let heard = source.last_event_ms.map_or_else(
            || "never heard of".to_owned(),
            |age| format!("last heard of {} ago", span(age / 1000)),
        );
        let listed = if source.listed {
            "listed"
        } else {
            "NOT LISTED YET"
        };
        line(
            text,
            "Source",
            &format!("{}: {listed}, {heard}", source.source),
        );
    }
    let mut sync = if view.in_sync {
        "the maps say what the sources say".to_owned()
    } else {
        format!("{} services behind", view.pending)
    };
    if let Some(plan) = &view.last_plan {
        sync = format!(
            "{sync}; last change {} ago, {} entries in {:.1} ms{}",
            span(plan.age_ms / 1000),
            plan.changes,
            milliseconds(plan.microseconds),
            plan.error
                .as_ref()
                .map_or_else(String::new, |error| format!(", stopped: {error}"))
        );
    }
    line(text, "Maps", &sync);
    line(
        text,
        "Services",
        &format!(
            "{} service ports, {} without backends, {} backends, {} not served, {} refused",
            view.services.len(),
            idle(view).count(),
            view.backends.len(),
            view.not_served.len(),
            view.refused.len()
        ),
    );
    let sweep = &agent.sweep;
    let ageing = match &sweep.error {
        Some(error) => format!("FAILS: {error}"),
        None => format!(
            "{} sweeps, the last took {:.1} ms",
            sweep.sweeps,
            milliseconds(sweep.microseconds)
        ),
    };
    line(text, "Ageing", &ageing);
    socket_text(text, agent);
    section(text, "Devices");
    text.push_str(&devices::rows(&agent.devices, wide).text());
    list(text, "Programs of others", devices::foreign(&agent.devices));
    list(text, "Without backends", idle_services(view));
    let warnings = agent.node_warnings.iter().chain(&view.warnings);
    list(
        text,
        "Warnings",
        warnings.map(ToString::to_string).collect(),
    );
    if wide {
        section(text, "Kernel");
        text.push_str(&super::probe::abilities(&agent.kernel).text());
    }
}

/// Who has no backends, and why; of many the first ones.
fn idle_services(view: &View) -> Vec<String> {
    let mut lines: Vec<String> = idle(view)
        .take(IDLE)
        .map(|(it, because)| format!("{}, {}: {because}", it.port_name(), it.family))
        .collect();
    let more = idle(view).count() - lines.len();
    if more > 0 {
        lines.push(format!(
            "{more} more, with 0 BACKENDS in `waggle get services`"
        ));
    }
    lines
}

fn idle(view: &View) -> impl Iterator<Item = (&ServiceView, &str)> {
    let services = view.services.iter();
    services.filter_map(|it| Some((it, it.no_backends_because.as_deref()?)))
}

fn socket_text(text: &mut String, agent: &AgentState) {
    let attached = agent
        .socket_hooks
        .iter()
        .filter(|hook| hook.attached)
        .count();
    line(
        text,
        "Sockets",
        &format!(
            "{attached} of {} hooks at {}; {}",
            agent.socket_hooks.len(),
            agent.cgroup_root,
            if agent.kernel.socket_destroy {
                format!(
                    "{} connected UDP sockets of backends that left were ended",
                    agent.destroyed_sockets
                )
            } else {
                "this kernel cannot end connected UDP sockets of backends that leave (no CONFIG_INET_DIAG_DESTROY)".to_owned()
            }
        ),
    );
    for hook in &agent.socket_hooks {
        if let Some(error) = &hook.error {
            line(text, " ", &format!("{}: {error}", hook.name));
        }
    }
}

fn maps_text(text: &mut String, status: &Status, wide: bool) {
    if status.maps.is_empty() {
        return;
    }
    section(text, "Map fill");
    let mut rows = Rows::new(&["MAP", "USED", "CAPACITY", "FILL"]);
    for map in &status.maps {
        let percent = map.used * 100 / u64::from(map.capacity.max(1));
        rows.push(vec![
            map.name.clone(),
            map.used.to_string(),
            map.capacity.to_string(),
            format!(
                "{percent}%{}",
                if percent >= 90 { " NEARLY FULL" } else { "" }
            ),
        ]);
    }
    text.push_str(&rows.text());
    let header = if wide {
        vec!["COUNTER", "VALUE", "MEANING"]
    } else {
        vec!["COUNTER", "VALUE"]
    };
    let mut rows = Rows::new(&header);
    for counter in &status.counters {
        let mut row = vec![counter.name.clone(), counter.value.to_string()];
        if wide {
            row.push(counter.meaning.clone());
        }
        rows.push(row);
    }
    if !rows.is_empty() {
        section(text, "Counters");
        text.push_str(&rows.text());
    }
}

/// A section, unless there is nothing for it.
fn list(text: &mut String, title: &str, lines: Vec<String>) {
    if !lines.is_empty() {
        section(text, title);
    }
    for what in lines {
        line(text, " ", &what);
    }
}

fn section(text: &mut String, title: &str) {
    text.extend(["\n", title, "\n"]);
}

fn line(text: &mut String, label: &str, what: &str) {
    let padding = " ".repeat(10usize.saturating_sub(label.len()));
    text.extend([label, &padding, what, "\n"]);
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_nothing_and_what_cannot_be_read_is_said() {
        let mut notes = Vec::new();
        let mut note = |what: &str, error: io::Error| notes.push(format!("{what}: {error}"));
        let absent = io::Error::from(io::ErrorKind::NotFound);
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(there("links", Ok(1), &mut note), 1);
        assert_eq!(there("links", Err::<u32, _>(absent), &mut note), 0);
        assert_eq!(there("maps", Err::<u32, _>(refused), &mut note), 0);
        assert_eq!(notes, ["maps: permission denied"]);
    }

    #[test]
    fn of_many_services_without_backends_the_first_are_listed() {
        let service = |id: u32, because: Option<&str>| -> ServiceView {
            let view = serde_json::json!({
                "id": id, "namespace": "default", "name": format!("web-{id}"), "type": null, "port": "",
                "protocol": "tcp", "family": "IPv4", "clusterIp": null, "frontends": [], "backends": [],
                "noBackendsBecause": because, "changedMs": null,
            });
            serde_json::from_value(view).unwrap()
        };
        let view = |count| View {
            services: (0..count)
                .map(|id| service(id, Some("nobody is ready")))
                .chain([service(99, None)])
                .collect(),
            ..View::default()
        };
        assert_eq!(idle_services(&view(0)), [""; 0]);
        let few = idle_services(&view(2));
        assert_eq!(
            few,
            [0, 1].map(|id| format!("default/web-{id}/tcp, IPv4: nobody is ready"))
        );
        let many = idle_services(&view(25));
        assert_eq!(many.len(), IDLE + 1);
        assert!(many[IDLE].starts_with("5 more"), "{many:?}");
    }

    #[test]
    fn problems_stand_in_the_text() {
        let status = Status {
            agent: None,
            agent_missing: Some("no agent runs here".to_owned()),
            pinned_links: Vec::new(),
            maps: Vec::new(),
            counters: Vec::new(),
            unreadable: vec!["cannot read the maps: permission denied".to_owned()],
            unsupported: Vec::new(),
        };
        let text = text(&status, false);
        assert!(
            text.contains("cannot read the maps: permission denied"),
            "{text}"
        );
    }
}
