//! A steady load of new connections, and connections that stay: what an endpoint change must not
//! hurt.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::machine::netns::{Namespace, joined};
use crate::now;
use crate::traffic::client::{Answers, HttpFailure, http_get, http_get_on};

/// How many requests of one load may be under way at once: a slow answer must not slow the rate down.
const WORKERS: u32 = 8;

/// What each step of a request may take.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// What no machine needs for some requests, however busy it is.
const MUCH: Duration = Duration::from_mins(1);

/// A request that takes longer has lost a segment: TCP sends again after 1 s (SYN) or 200 ms.
const SLOW: Duration = Duration::from_millis(900);

/// One request of a load.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it began.
    pub begun: Instant,
    /// How long it took.
    pub took: Duration,
    /// The body, or what went wrong.
    pub result: Result<String, HttpFailure>,
}

/// A load under way: a GET over its own connection every 1/`rate` of a second.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    workers: Vec<JoinHandle<Result<Vec<Sample>>>>,
}

impl Load {
    /// Starts `rate` requests per second from `namespace` to `address`; it ends by itself after `limit`.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        rate: u32,
        limit: Duration,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let turn = Arc::new(AtomicU32::new(0));
        let done = Arc::new(AtomicU32::new(0));
        let begin = now();
        let interval = Duration::from_secs(1) / rate;
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            let (stop, turn) = (Arc::clone(&stop), Arc::clone(&turn));
            let done = Arc::clone(&done);
            workers.push(namespace.start(move || {
                let mut samples = Vec::new();
                while !stop.load(Ordering::Relaxed) && begin.elapsed() < limit {
                    let due = interval * turn.fetch_add(1, Ordering::Relaxed);
                    sleep(due.saturating_sub(begin.elapsed()));
                    let begun = now();
                    let result = http_get(address, STEP_LIMIT);
                    let took = begun.elapsed();
                    samples.push(Sample {
                        begun,
                        took,
                        result,
                    });
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(samples)
            })?);
        }
        Ok(Self {
            stop,
            done,
            workers,
        })
    }

    /// Waits until so many more requests have come to their end, well or badly.
    pub fn wait_for_more(&self, requests: u32) -> Result<()> {
        wait_for_more(&self.done, requests)
    }

    /// Ends it and waits for the requests under way.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for worker in self.workers.drain(..) {
            samples.append(&mut joined(worker.join())?);
        }
        samples.sort_by_key(|sample| sample.begun);
        Ok(LoadReport { samples })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a load came to, in the order of the requests.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Every request.
    pub samples: Vec<Sample>,
}

impl LoadReport {
    /// How many answers of each server to the requests that began in a span of time.
    pub fn answers_between(&self, from: Instant, to: Instant) -> Answers {
        let mut answers = Answers::new();
        for sample in &self.samples {
            if let Ok(body) = &sample.result
                && (from..to).contains(&sample.begun)
            {
                *answers.entry(body.clone()).or_default() += 1;
            }
        }
        answers
    }

    /// How many answers of each server.
    pub fn answers(&self) -> Answers {
        let ends = self.samples.first().zip(self.samples.last());
        ends.map_or_else(Answers::new, |(first, last)| {
            self.answers_between(first.begun, last.begun + Duration::from_nanos(1))
        })
    }

    /// Requests that took so long that a segment was probably lost.
    pub fn slow(&self) -> usize {
        self.samples
            .iter()
            .filter(|sample| sample.took > SLOW)
            .count()
    }

    /// An error that tells each failure if there was one, or if there were fewer requests than `least`.
    pub fn check(&self, least: usize) -> Result<()> {
        let mut failures = BTreeMap::<String, (usize, Duration)>::new();
        let begin = self.samples.first().map(|sample| sample.begun);
        for sample in &self.samples {
            if let (Err(failure), Some(begin)) = (&sample.result, begin) {
                let first = sample.begun.duration_since(begin);
                let entry = failures.entry(failure.to_string()).or_insert((0, first));
                entry.0 += 1;
            }
        }
        let mut text = String::new();
        for (failure, (count, first)) in &failures {
            writeln!(text, "{count} × {failure} (first after {first:.3?})")?;
        }
        let total = self.samples.len();
        ensure!(
            failures.is_empty(),
            "of {total} requests failed:\n{text}answered: {:?}",
            self.answers()
        );
        ensure!(total >= least, "{total} requests in place of {least}");
        Ok(())
    }
}

/// Waits until a count has grown by so much. A machine that is busy otherwise takes its time.
fn wait_for_more(count: &AtomicU32, more: u32) -> Result<()> {
    let (begin, first) = (now(), count.load(Ordering::Relaxed));
    loop {
        let grown = count.load(Ordering::Relaxed) - first;
        if grown >= more {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < MUCH,
            "{grown} requests in {MUCH:?}, in place of {more}"
        );
        sleep(Duration::from_millis(5));
    }
}

/// A connection over which a request goes every 20 ms, for as long as the test wants.
#[derive(Debug)]
pub struct LongConnection {
    server: String,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    worker: Option<JoinHandle<Result<Answers>>>,
}

impl LongConnection {
    /// Connects from `namespace` to `address` and begins.
    pub fn start(namespace: &Namespace, address: SocketAddr, limit: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&stop);
        let answered = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&answered);
        let mut stream = namespace.run(|| Ok(TcpStream::connect_timeout(&address, STEP_LIMIT)?))?;
        stream.set_read_timeout(Some(STEP_LIMIT))?;
        stream.set_nodelay(true)?;
        let server = http_get_on(&mut stream, true)?;
        let begin = now();
        let worker = namespace.start(move || {
            let mut answers = Answers::new();
            while !should_stop.load(Ordering::Relaxed) && begin.elapsed() < limit {
                let body = http_get_on(&mut stream, true).map_err(|failure| {
                    anyhow::anyhow!("{failure} after {:?} and {answers:?}", begin.elapsed())
                })?;
                *answers.entry(body).or_default() += 1;
                count.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20));
            }
            Ok(answers)
        })?;
        Ok(Self {
            server,
            stop,
            answered,
            worker: Some(worker),
        })
    }

    /// Waits until so many more requests were answered.
    pub fn wait_for_more(&self, requests: u32) -> Result<()> {
        wait_for_more(&self.answered, requests)
    }

    /// Who gave the first answer.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Ends it; the one server that answered and how often, or how the connection broke.
    pub fn stop(mut self) -> Result<(String, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(worker) = self.worker.take() else {
            anyhow::bail!("the connection has been stopped before");
        };
        let answers = joined(worker.join())?;
        ensure!(
            answers.len() == 1,
            "one connection, but answers of {answers:?}"
        );
        answers
            .into_iter()
            .next()
            .ok_or_else(|| anyhow::anyhow!("no answer at all"))
    }
}

impl Drop for LongConnection {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
