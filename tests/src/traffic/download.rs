//! Transfers that take a while or are large, and that must arrive byte by byte as they were sent.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::machine::netns::{Namespace, joined};

/// A transfer that stands still for so long has failed.
const STALL: Duration = Duration::from_secs(10);

/// A download of `/slow` that is under way.
#[derive(Debug)]
pub struct SlowDownload {
    /// The pod that serves it.
    pub pod: String,
    worker: JoinHandle<Result<usize>>,
}

impl SlowDownload {
    /// Begins a download; returns when the server has answered, which says its pod.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let (stream, head, begun) = namespace.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, STALL)?;
            stream.set_read_timeout(Some(STALL))?;
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
            let (head, begun) = read_head(&mut stream)?;
            Ok((stream, head, begun))
        })?;
        let pod = header(&head, "X-Pod")
            .context("no header X-Pod")?
            .to_owned();
        let length: usize = header(&head, "Content-Length")
            .context("no Content-Length")?
            .parse()?;
        let worker = namespace.start(move || finish(stream, begun, length))?;
        Ok(Self { pod, worker })
    }

    /// Begins downloads until `pod` serves one, and returns that one; the others are abandoned.
    pub fn start_from(namespace: &Namespace, address: SocketAddr, pod: &str) -> Result<Self> {
        for _ in 0..200 {
            let download = Self::start(namespace, address)?;
            if download.pod == pod {
                return Ok(download);
            }
        }
        bail!("of 200 downloads from {address} none was served by {pod}");
    }

    /// Waits for its end; the number of bytes, all of them as the server has them.
    pub fn finish(self) -> Result<usize> {
        joined(self.worker.join()).with_context(|| format!("the download from {}", self.pod))
    }
}

fn read_head(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
            return Ok((head.to_owned(), body.as_bytes().to_vec()));
        }
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection ended in the header: {text:?}");
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
    head.lines().find_map(value)
}

fn finish(mut stream: TcpStream, mut received: Vec<u8>, length: usize) -> Result<usize> {
    let before = received.len();
    stream
        .read_to_end(&mut received)
        .with_context(|| format!("broke after {before} and more of {length} bytes"))?;
    ensure!(
        received.len() == length,
        "ended after {} of {length} bytes",
        received.len()
    );
    let expected = (b'a'..=b'z').cycle();
    ensure!(
        received.iter().copied().zip(expected).all(|(a, b)| a == b),
        "bytes differ from what the server has"
    );
    Ok(length)
}

/// Bytes that no shifted or repeated part of them looks like.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64: enough to make every segment different.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Downloads `url` with curl into `file`.
pub fn download(namespace: &Namespace, url: &str, file: &Path) -> Result<()> {
    let file = file.to_str().context("a path in UTF-8")?;
    namespace.output(
        "curl",
        &[
            "-sSf",
            "--max-time",
            "120",
            "--noproxy",
            "*",
            "-o",
            file,
            url,
        ],
    )?;
    Ok(())
}

/// Uploads `file` with curl (PUT) to `url`.
pub fn upload(namespace: &Namespace, file: &Path, url: &str) -> Result<()> {
    let file = file.to_str().context("a path in UTF-8")?;
    namespace.output(
        "curl",
        &[
            "-sSf",
            "--max-time",
            "120",
            "--noproxy",
            "*",
            "-T",
            file,
            url,
        ],
    )?;
    Ok(())
}
