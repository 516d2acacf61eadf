//! The store below the API servers.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::program::Program;
use super::site::Site;
use super::{READY_WITHIN, poll};

/// Where etcd listens: a socket of the file system, for a port could be taken.
pub(super) fn socket(site: &Site) -> PathBuf {
    site.folder().join("etcd.sock")
}

/// Starts etcd and waits until it answers: an API server that finds it silent waits a second or two
/// before it asks again.
pub(super) fn start(site: &Site) -> Result<Program> {
    let socket = socket(site);
    let mut etcd = Program::start(
        site,
        "etcd",
        &[
            ("name", "test".to_owned()),
            ("data-dir", site.folder().join("etcd").display().to_string()),
            ("listen-client-urls", format!("unix://{}", socket.display())),
            // It insists on ports in what it advertises, which nobody reads here.
            ("advertise-client-urls", "unix://client:1".into()),
            ("listen-peer-urls", "unix://peer:1".into()),
            ("initial-advertise-peer-urls", "unix://peer:1".into()),
            ("initial-cluster", "test=unix://peer:1".into()),
            ("unsafe-no-fsync", "true".into()),
            ("log-level", "warn".into()),
        ],
    )?;
    let healthy = poll("etcd is healthy", READY_WITHIN, || {
        etcd.check_alive()?;
        // It is not listening yet, or hangs up while it starts.
        Ok(is_healthy(&socket).unwrap_or(false).then_some(()))
    });
    healthy.with_context(|| etcd.log_tail())?;
    Ok(etcd)
}

fn is_healthy(socket: &Path) -> io::Result<bool> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains(r#""health":"true""#))
}
