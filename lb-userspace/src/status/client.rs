//! Asks a running agent.
use std::{io, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{AgentState, SOCKET};

/// How long an agent may take to answer; one with 10,000 Services takes well under a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// The agent's answer, or why there is none.
#[derive(Debug)]
pub enum Asked {
    /// It runs.
    Answered(Box<AgentState>),
    /// It does not run.
    NotRunning(String),
}

/// Asks the agent whose run folder this is.
///
/// # Errors
/// If there is an agent and it does not answer, or nobody but root may ask it.
pub fn ask(run_dir: &Path) -> Result<Asked> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let socket = run_dir.join(SOCKET);
    let answer = state(&socket);
    let limited = async { tokio::time::timeout(PATIENCE, answer).await };
    runtime.block_on(limited).unwrap_or_else(|_| {
        bail!(
            "the agent does not answer within {} s: is it stopped, or has the machine no time for it?",
            PATIENCE.as_secs()
        )
    })
}

async fn state(socket: &Path) -> Result<Asked> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) => return refused(socket, &error),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .context("the agent does not speak HTTP")?;
    drop(tokio::spawn(connection));
    let request = Request::get("/v1/state")
        .header(header::HOST, "waggle")
        .body(Empty::<Bytes>::new())
        .context("the request cannot be made")?;
    let response = sender
        .send_request(request)
        .await
        .context("the agent does not answer")?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .context("the agent's answer breaks off")?
        .to_bytes();
    if !status.is_success() {
        bail!(
            "the agent says {status}: {}",
            String::from_utf8_lossy(&body)
        );
    }
    let state = serde_json::from_slice(&body)
        .context("the agent's answer cannot be read; is it of another version?")?;
    Ok(Asked::Answered(state))
}

fn refused(socket: &Path, error: &io::Error) -> Result<Asked> {
    let kind = error.kind();
    if matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    ) {
        return Ok(Asked::NotRunning(format!(
            "no agent runs here: nobody listens on {}",
            socket.display()
        )));
    }
    if kind == io::ErrorKind::PermissionDenied {
        bail!("needs root: {} is root's", socket.display());
    }
    bail!("cannot reach the agent at {}: {error}", socket.display())
}
