//! When connected UDP sockets are looked through for those whose backend has left: as soon as one has, at the start for
//! those that an earlier agent has left behind, and again and again, for a `connect` chooses its backend a moment before
//! its socket can be seen.
use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    time::Duration,
};

use tokio::sync::watch;

use super::sockets::{self, Ended};
use crate::{
    agent::{Observer, Report},
    supervise::Tasks,
};

/// Between two looks, if nobody asks for one.
const PAUSE: Duration = Duration::from_secs(5);

/// Asks for a look whenever the backend of a UDP service has left.
#[derive(Debug)]
pub struct Retired(SyncSender<()>);

impl Observer for Retired {
    fn applied(&mut self, report: &Report) {
        let mut retired = report.retired.iter();
        if retired.any(|backend| backend.protocol != Some(lb_common::Protocol::Tcp)) {
            // A look that is asked for already begins after this; and nobody listens while the program ends.
            let _nobody_or_asked = self.0.try_send(());
        }
    }
}

/// Starts the thread that looks, until the observer is dropped: how many sockets it has ended.
pub fn start(maps: PathBuf, tasks: &Tasks) -> io::Result<(Retired, watch::Receiver<u64>)> {
    let (asks, asked) = mpsc::sync_channel(1);
    let (count, ended) = watch::channel(0);
    drop(tasks.thread("sockets", move || run(&maps, &asked, &count))?);
    Ok((Retired(asks), ended))
}

fn run(maps: &Path, asked: &mpsc::Receiver<()>, count: &watch::Sender<u64>) {
    let mut trouble = None;
    loop {
        let result = sockets::end_stranded(maps);
        if let Ok(ended) = &result {
            if ended.unsupported {
                // That was said at the start; there is nothing to do until the observer is dropped.
                while asked.recv().is_ok() {}
                return;
            }
            if ended.count > 0 {
                let ended = ended.count;
                tracing::info!("ended {ended} connected UDP sockets whose backend has left");
                count.send_modify(|count| *count += u64::try_from(ended).unwrap_or_default());
            }
        }
        let before = std::mem::replace(&mut trouble, complaint(result));
        if let Some(trouble) = trouble.as_ref().filter(|it| before.as_ref() != Some(*it)) {
            tracing::warn!("{trouble}");
        }
        if asked.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// What a person should know of a look.
fn complaint(result: io::Result<Ended>) -> Option<String> {
    let pause = PAUSE.as_secs();
    match result {
        Err(error) => Some(format!(
            "cannot look for connected UDP sockets whose backend has left: {error}; trying again every {pause} s"
        )),
        Ok(Ended {
            remaining,
            error: Some(error),
            ..
        }) => Some(format!(
            "{remaining} connected UDP sockets stay with a backend that has left: {error}; trying again every {pause} s"
        )),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_says_how_many_sockets_remain_and_why() {
        let ended = Ended {
            count: 3,
            remaining: 2,
            error: Some("EPERM".to_owned()),
            unsupported: false,
        };
        let complaint_of = complaint(Ok(ended)).unwrap_or_default();
        assert!(
            complaint_of.contains("2 connected") && complaint_of.contains("EPERM"),
            "{complaint_of}"
        );
        assert_eq!(complaint(Ok(Ended::default())), None);
        assert!(complaint(Err(io::Error::other("no map"))).is_some());
    }
}
