//! A folder of manifests, read again when it changes.
mod file;
mod folder;

use std::{
    path::{Path, PathBuf},
    time::Duration,
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
    // The watch stands before the first reading: what changes in between is seen.
    let _watcher = start_watcher(&folder, notify).with_context(|| {
        format!(
            "the folder {} cannot be watched: does it exist?",
            folder.display()
        )
    })?;
    let mut folder = Folder::new(folder);
    loop {
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
        let (services, slices) = (objects.services, objects.slices);
        events
            .send(Event::Replaced {
                services,
                slices,
                vanished_pods: objects.vanished_pods,
                is_complete: objects.is_complete,
            })
            .await?;
    }
    Ok(())
}

fn start_watcher(folder: &Path, changes: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
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
    Ok(watcher)
}

#[cfg(test)]
#[path = "manifests/tests.rs"]
mod tests;
