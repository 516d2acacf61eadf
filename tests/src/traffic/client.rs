//! Clients: curl as a person would use it, and small ones that say exactly what went wrong.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::machine::netns::Namespace;

/// What a step of a request may take: a lost segment shows as a much longer time, a dead flow as this.
const STEP_LIMIT: Duration = Duration::from_secs(15);

/// How many answers of each server; the key is the first line it sent.
pub type Answers = BTreeMap<String, u64>;

/// How many requests show each of `servers` equally likely servers but for one chance in a billion.
pub fn requests_to_meet_all(servers: usize) -> usize {
    let mut requests = 1;
    // servers · (1 − 1/servers)^requests bounds the chance that one was missed.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a handful of servers is exact in f64"
    )]
    let count = servers as f64;
    let mut chance = count;
    while chance > 1e-9 {
        chance *= 1.0 - 1.0 / count;
        requests += 1;
    }
    requests
}

/// Asks `url` with the program curl `times` times, each over its own connection, and counts the answers.
/// Any failed request is an error.
pub fn curl(namespace: &Namespace, url: &str, times: usize) -> Result<Answers> {
    let range = format!("{url}?[1-{times}]");
    let arguments = [
        "--silent",
        "--show-error",
        "--fail",
        "--no-keepalive",
        "--header",
        "Connection: close",
        "--connect-timeout",
        "15",
        "--max-time",
        "30",
        "--noproxy",
        "*",
        "--fail-early",
        range.as_str(),
    ];
    let text = namespace.output("curl", &arguments)?;
    let mut answers = Answers::new();
    for line in text.lines() {
        *answers.entry(line.to_owned()).or_default() += 1;
    }
    let sum: u64 = answers.values().sum();
    ensure!(
        usize::try_from(sum)? == times,
        "{sum} answers to {times} requests: {text}"
    );
    Ok(answers)
}

/// The URL of the root of `address`.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// What a small HTTP request came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HttpFailure {
    /// No connection, or it broke: what the system said.
    Broken(String),
    /// No answer in time, and which step was waited for.
    TimedOut(&'static str),
    /// An answer that is not `200 OK` with a body.
    Odd(String),
}

impl std::fmt::Display for HttpFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(why) => write!(formatter, "broken: {why}"),
            Self::TimedOut(step) => write!(formatter, "timed out: {step}"),
            Self::Odd(answer) => write!(formatter, "odd answer: {answer:?}"),
        }
    }
}

impl std::error::Error for HttpFailure {}

fn failure(step: &'static str) -> impl Fn(std::io::Error) -> HttpFailure {
    move |error| {
        if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) {
            HttpFailure::TimedOut(step)
        } else {
            HttpFailure::Broken(format!("{step}: {error}"))
        }
    }
}

/// GETs `/` from `address` over a connection of its own, from the calling thread's namespace; the
/// body without its line end. Each step may take `limit`.
pub fn http_get(address: SocketAddr, limit: Duration) -> Result<String, HttpFailure> {
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(failure("connect"))?;
    stream
        .set_read_timeout(Some(limit))
        .map_err(failure("socket"))?;
    stream.set_nodelay(true).map_err(failure("socket"))?;
    http_get_on(&mut stream, false)
}

/// GETs `/` over an open connection; it stays usable if `keep` is set.
pub fn http_get_on(stream: &mut TcpStream, keep: bool) -> Result<String, HttpFailure> {
    let connection = if keep { "keep-alive" } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(failure("send"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer);
        if keep && let Some(body) = complete_body(&text) {
            return Ok(body);
        }
        let count = stream.read(&mut buffer).map_err(failure("receive"))?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&answer);
    complete_body(&text).ok_or_else(|| HttpFailure::Odd(text.into_owned()))
}

/// The body of a `200 OK` answer, if all of it (by its Content-Length) is there.
fn complete_body(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200") {
        return None;
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))?;
    (body.len() >= length.parse().ok()?).then(|| body.trim_end().to_owned())
}

/// Sends `/`-requests to `address` from inside `namespace`, `times` of them, and counts the answers.
pub fn http_gets(namespace: &Namespace, address: SocketAddr, times: usize) -> Result<Answers> {
    namespace.run(|| {
        let mut answers = Answers::new();
        for number in 0..times {
            let body = http_get(address, STEP_LIMIT)
                .with_context(|| format!("request {number} to {address}"))?;
            *answers.entry(body).or_default() += 1;
        }
        Ok(answers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_servers_need_seventy_eight_requests() {
        let requests = requests_to_meet_all(4);
        let chance = |n: usize| 4.0 * 0.75_f64.powi(i32::try_from(n).expect("small"));
        assert!(chance(requests) <= 1e-9, "{requests}");
        assert!(chance(requests - 3) > 1e-9, "{requests}");
    }

    #[test]
    fn an_answer_is_complete_when_its_content_length_is_there() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(complete_body(&format!("{head}ab")), None);
        assert_eq!(complete_body(&format!("{head}ab\n")), Some("ab".to_owned()));
        assert_eq!(
            complete_body("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
            None
        );
    }
}
