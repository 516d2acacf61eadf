//! Scenarios in text: manifests and what happens to them, and what the maps should say after each step.
//!
//! A scenario is a list of sections, each headed by a line `-- WORDS --`; what stands above the first is prose.
//!
//! ```text
//! -- write web.yaml --        the manifest folder has this file, with the section's text
//! -- remove web.yaml --       and has it no more
//! -- folder examples/web --    the folder has the files of that folder of the repository
//! -- endpoints web 70000 --   the folder has a slice of so many endpoints for the Service `web`
//! -- room backends 4 --       the maps have room for so many entries (before anything else)
//! -- wait 3s --               time passes
//! -- sweep --                 a sweep of the flows finds none that refers to a backend that has left
//! -- restart --               the agent ends, another one starts on the same maps
//! -- expect maps --           what the maps say now
//! -- expect changes --        the changes that were made since the last time this was asked, in their order
//! -- expect warnings --       what a person is told now
//! ```
//!
//! With `UPDATE_EXPECT=1` in the environment the texts of the expectations are rewritten: read the difference.
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use lb_userspace::{
    agent::{Agent, Event, RestingBackend, Settings, Source},
    config::Period,
    maps::{Capacities, dump, fake::FakeMaps},
    model::Place,
    watch::manifests::Folder,
};
use tokio::sync::oneshot;

use crate::cluster::scenario::record::Recorded;

mod record;

/// A part of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The words of its head.
    pub head: Vec<String>,
    /// What stands below it.
    pub text: String,
}

/// Plays a scenario file in a scratch folder, and rewrites it where it is told to.
///
/// # Errors
/// If an expectation is not met: the error shows what was expected and what came, and where.
pub fn play(file: &Path, scratch: &Path) -> anyhow::Result<()> {
    let mut stage = Stage::new(scratch);
    play_by(file, |section| stage.play(section))
}

/// Plays a file of sections: `step` plays one, and gives the text that came if it is an expectation.
///
/// # Errors
/// As for [`play`].
pub fn play_by(
    file: &Path,
    mut step: impl FnMut(&Section) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let (prose, sections) = parse(&text);
    let mut played = Vec::new();
    let mut failures = Vec::new();
    for section in &sections {
        let context = || format!("{}: -- {} --", file.display(), section.head.join(" "));
        let came = step(section).with_context(context)?;
        let Some(came) = came else {
            played.push(section.clone());
            continue;
        };
        if came != section.text {
            failures.push(format!(
                "{}\nexpected:\n{}came:\n{came}",
                context(),
                section.text
            ));
        }
        played.push(Section {
            head: section.head.clone(),
            text: came,
        });
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(file, format(&prose, &played))?;
        return Ok(());
    }
    ensure!(
        failures.is_empty(),
        "{}\nUPDATE_EXPECT=1 accepts what came",
        failures.join("\n")
    );
    Ok(())
}

fn parse(text: &str) -> (String, Vec<Section>) {
    let (mut prose, mut sections) = (String::new(), Vec::<Section>::new());
    for line in text.split_inclusive('\n') {
        let head = line
            .trim_end()
            .strip_prefix("-- ")
            .and_then(|line| line.strip_suffix(" --"));
        if let Some(head) = head {
            let head = head.split_whitespace().map(str::to_owned).collect();
            sections.push(Section {
                head,
                text: String::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            section.text.push_str(line);
        } else {
            prose.push_str(line);
        }
    }
    (prose, sections)
}

fn format(prose: &str, sections: &[Section]) -> String {
    let mut text = prose.to_owned();
    for section in sections {
        writeln!(text, "-- {} --", section.head.join(" ")).unwrap_or_default();
        text.push_str(&section.text);
    }
    text
}

/// A folder, an agent and its maps.
struct Stage<'a> {
    scratch: &'a Path,
    folder: Folder,
    capacities: Capacities,
    agent: Option<Agent<Recorded>>,
    now: Duration,
}

impl<'a> Stage<'a> {
    fn new(scratch: &'a Path) -> Self {
        Self {
            scratch,
            folder: Folder::new(scratch.to_owned()),
            capacities: Capacities::DECLARED,
            agent: None,
            now: Duration::ZERO,
        }
    }

    /// Plays a section; the text that came, if it is an expectation.
    fn play(&mut self, section: &Section) -> anyhow::Result<Option<String>> {
        let head: Vec<&str> = section.head.iter().map(String::as_str).collect();
        match head.as_slice() {
            ["write", name] => self.write(name, &section.text)?,
            ["remove", name] => fs::remove_file(self.scratch.join(name))?,
            ["folder", path] => {
                for entry in fs::read_dir(repository().join(path))? {
                    let path = entry?.path();
                    let name = path.file_name().context("a file with a name")?;
                    fs::copy(&path, self.scratch.join(name))?;
                }
            }
            ["endpoints", service, count] => {
                self.write(
                    &format!("{service}-endpoints.yaml"),
                    &slice(service, count.parse()?),
                )?;
            }
            ["room", map, entries] => self.make_room(map, entries.parse()?)?,
            ["wait", time] => {
                let end = self.now
                    + time
                        .parse::<Period<0>>()
                        .map_err(anyhow::Error::msg)?
                        .duration();
                self.work()?;
                while let Some(moment) = self.agent()?.wake_at().filter(|moment| *moment <= end) {
                    self.now = self.now.max(moment);
                    self.work()?;
                }
                self.now = end;
            }
            ["sweep"] => self.sweep()?,
            ["restart"] => self.restart()?,
            ["expect", "maps"] => {
                self.work()?;
                return Ok(Some(lines(&dump::lines(
                    &self.agent()?.maps().maps.contents,
                ))));
            }
            ["expect", "changes"] => {
                self.work()?;
                return Ok(Some(lines(&std::mem::take(
                    &mut self.agent()?.maps_mut().writes,
                ))));
            }
            ["expect", "warnings"] => {
                self.work()?;
                let now = self.now;
                let view = self.agent()?.view(now);
                let told: Vec<String> = view.warnings.iter().map(ToString::to_string).collect();
                return Ok(Some(lines(&told)));
            }
            other => bail!("no section is headed so: {other:?}"),
        }
        Ok(None)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.scratch.join(name);
        fs::create_dir_all(path.parent().context("a name in the folder")?)?;
        Ok(fs::write(path, text)?)
    }

    fn make_room(&mut self, map: &str, entries: u32) -> anyhow::Result<()> {
        ensure!(
            self.agent.is_none(),
            "the agent has started: say what there is room for before"
        );
        match map {
            "frontends" => self.capacities.frontends = entries,
            "services" => self.capacities.services = entries,
            "slots" => self.capacities.slots = entries,
            "backends" => self.capacities.backends = entries,
            _ => bail!("no map is called {map}"),
        }
        Ok(())
    }

    fn agent(&mut self) -> anyhow::Result<&mut Agent<Recorded>> {
        if self.agent.is_none() {
            let maps = Recorded::new(FakeMaps::with_capacities(self.capacities));
            self.agent = Some(Agent::new(settings()?, maps)?);
        }
        self.agent.as_mut().context("an agent")
    }

    /// The agent reads the folder and does what there is to do at this moment.
    fn work(&mut self) -> anyhow::Result<()> {
        let reading = self.folder.read();
        let now = self.now;
        let agent = self.agent()?;
        if let Some(warnings) = reading.warnings {
            agent.handle(
                Event::Trouble {
                    source: Source::Manifests,
                    warnings,
                },
                now,
            );
        }
        if let Some(objects) = reading.objects {
            agent.handle(
                Event::Replaced {
                    services: objects.services,
                    slices: objects.slices,
                    service_cidrs: objects.service_cidrs,
                    vanished_pods: objects.vanished_pods,
                    is_complete: objects.is_complete,
                },
                now,
            );
        }
        // What is due by now is done by now, however often it has to be woken.
        while agent.wake_at().is_some_and(|moment| moment <= now) {
            agent.reconcile(&|| now);
        }
        Ok(())
    }

    fn sweep(&mut self) -> anyhow::Result<()> {
        self.work()?;
        let now = self.now;
        let agent = self.agent()?;
        let resting = resting(agent, now)?;
        agent.handle(Event::Unreferenced(resting), now);
        Ok(())
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        let mut maps = self.agent()?.maps().clone();
        maps.writes.clear();
        self.agent = Some(Agent::new(settings()?, maps)?);
        self.folder = Folder::new(self.scratch.to_owned());
        Ok(())
    }
}

/// The backends that have left, as the sweep of the flows asks for them.
///
/// # Errors
/// If the agent does not answer.
pub fn resting<M: lb_userspace::maps::LbMaps>(
    agent: &mut Agent<M>,
    now: Duration,
) -> anyhow::Result<Vec<RestingBackend>> {
    let (sender, mut answer) = oneshot::channel();
    agent.handle(Event::Resting(sender), now);
    Ok(answer.try_recv()?)
}

/// The settings that the tests of the agent's loop use: the defaults.
///
/// # Errors
/// If the defaults contradict each other.
pub fn settings() -> anyhow::Result<Settings> {
    let defaults = lb_userspace::config::Settings::default();
    Ok(Settings {
        sources: BTreeSet::from([Source::Manifests]),
        // The agent of node-1 (192.0.2.1), in zone-a.
        place: Place {
            node: "node-1".to_owned(),
            zone: Some("zone-a".to_owned()),
            addresses: vec![IpAddr::from([192, 0, 2, 1])],
            ..Place::default()
        },
        ..defaults.agent()?
    })
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn lines(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A slice of so many endpoints, from 10.128.0.1 on.
fn slice(service: &str, count: u32) -> String {
    let mut text = format!(
        "kind: EndpointSlice\nmetadata: {{name: {service}-1, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints:\n"
    );
    for number in 1..=count {
        let address = std::net::Ipv4Addr::from(0x0a80_0000 + number);
        writeln!(text, "- addresses: [{address}]").unwrap_or_default();
    }
    text
}
