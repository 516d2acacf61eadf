//! A folder of manifests, read again when it changes.
mod file;
mod folder;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind};
use tokio::sync::mpsc;

pub use folder::{Folder, Reading};

use crate::agent::{Event, Source};

/// The folder is read again after so long even if nothing was heard of it: some file systems tell nothing.
const RESCAN: Duration = Duration::from_secs(10);

/// Sends [`Event::Replaced`] for the folder and again whenever it changes, until the receiver is gone. Changes are read
/// once nothing more has happened for the time `settle`, at the latest after ten times that.
///
/// # Errors
/// If the folder cannot be watched at all. Files that cannot be read are [`Event::Trouble`], not errors.
pub async fn watch(
    folder: PathBuf,
    settle: Duration,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let (notify, mut changes) = mpsc::channel(1);
    let path = std::path::absolute(&folder)?;
    // The watch stands before the first reading: what changes in between is seen.
    let mut watched = Watched::start(&path, &notify).with_context(|| {
        format!(
            "the folder {} cannot be watched: does it exist?",
            folder.display()
        )
    })?;
    let mut folder = Folder::new(folder);
    loop {
        // A folder that was removed and made anew is another one, and the watch was on the old one.
        if watched.is_another(&path) {
            match Watched::start(&path, &notify) {
                Ok(another) => watched = another,
                Err(error) => tracing::debug!("{} is gone again: {error}", path.display()),
            }
        }
        let reading;
        (folder, reading) = tokio::task::spawn_blocking(move || {
            let reading = folder.read();
            (folder, reading)
        })
        .await?;
        if send(reading, &events).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            () = events.closed() => return Ok(()),
            _ = tokio::time::timeout(RESCAN, changes.recv()) => {}
        }
        let latest = tokio::time::sleep(settle * 10);
        tokio::pin!(latest);
        loop {
            tokio::select! {
                () = &mut latest => break,
                changed = tokio::time::timeout(settle, changes.recv()) => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

async fn send(
    reading: Reading,
    events: &mpsc::Sender<Event>,
) -> Result<(), mpsc::error::SendError<Event>> {
    if let Some(warnings) = reading.warnings {
        events
            .send(Event::Trouble {
                source: Source::Manifests,
                warnings,
            })
            .await?;
    }
    if let Some(objects) = reading.objects {
        events
            .send(Event::Replaced {
                services: objects.services,
                slices: objects.slices,
                service_cidrs: objects.service_cidrs,
                vanished_pods: objects.vanished_pods,
                is_complete: objects.is_complete,
            })
            .await?;
    }
    Ok(())
}

/// The folder that is watched.
struct Watched {
    identity: Option<Identity>,
    _watcher: RecommendedWatcher,
}

impl Watched {
    fn start(folder: &Path, changes: &mpsc::Sender<()>) -> notify::Result<Self> {
        Ok(Self {
            identity: identity(folder),
            _watcher: start_watcher(folder, changes.clone())?,
        })
    }

    fn is_another(&self, folder: &Path) -> bool {
        let current = identity(folder);
        current.is_some() && current != self.identity
    }
}

/// Device, number and time of birth: another folder at the same place has another one of them. Numbers are used again.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(folder: &Path) -> Option<Identity> {
    let about = fs::metadata(folder).ok()?;
    Some((about.dev(), about.ino(), about.created().ok()))
}

/// Watches the folder, and in the folder above it whether this one comes and goes.
fn start_watcher(folder: &Path, changes: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let own = folder.to_owned();
    let handler = move |event: notify::Result<notify::Event>| {
        // What else happens above is nothing to us.
        let is_ours = |event: &notify::Event| {
            event.paths.is_empty() || event.paths.iter().any(|it| it.starts_with(&own))
        };
        if !event.as_ref().is_ok_and(is_ours) && event.is_ok() {
            return;
        }
        // Reading a file is an event too, and must not lead to reading it again.
        let read_only = matches!(
            event,
            Ok(notify::Event { kind: EventKind::Access(kind), .. })
                if !matches!(kind, AccessKind::Close(notify::event::AccessMode::Write))
        );
        if !read_only {
            // It does not matter if the channel is full: it says "changed" already.
            changes.try_send(()).unwrap_or_default();
        }
    };
    let mut watcher = notify::recommended_watcher(handler)?;
    watcher.watch(folder, RecursiveMode::Recursive)?;
    if let Some(above) = folder.parent() {
        let watched = watcher.watch(above, RecursiveMode::NonRecursive);
        if let Err(error) = watched {
            tracing::debug!(
                "{} cannot be watched, so a folder made anew is seen after {RESCAN:?}: {error}",
                above.display()
            );
        }
    }
    Ok(watcher)
}

#[cfg(test)]
#[path = "manifests/tests.rs"]
mod tests;
