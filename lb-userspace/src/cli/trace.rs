//! `waggle trace`: what would happen to a packet.
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use lb_common::Protocol;
use serde_json::json;

use super::{Paths, get::missing, table};
use crate::{
    config::{NodeOptions, Settings},
    status::client::{Asked, ask},
    trace::{self, Origin, Question, Read, Tracer},
};

/// What `trace` is asked.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  waggle trace --manifests examples/my-service --in pod --proto tcp --src 10.244.1.9:40000 --dst 10.103.145.6:80
  waggle trace --manifests DIR --node-ip 192.0.2.1 --proto udp --src 198.51.100.7:5353 --dst 192.0.2.1:30053
  waggle trace --in host --proto tcp --src 192.0.2.1:40000 --dst 10.96.0.1:443 -o json
  waggle trace --manifests DIR --batch questions.jsonl | jq -r .verdict

A question of --batch is a line `{\"in\": \"pod\", \"proto\": \"tcp\", \"src\": \"10.244.1.9:40000\", \"dst\": \"10.96.0.1:443\"}`.

Keys of the answer in JSON, always all of them, null or [] where there is nothing:
  verdict            dnat, pass, drop or reject
  reason             why, in a word
  service            namespace/name:port, or namespace/name if the port has no name
  frontend           the address:port that was dialled, if it is a Service's
  scope              internal (cluster address) or external (node port, load balancer, external IP)
  candidates         the address:port of each backend that new flows of this kind may get, sorted
  backend            the one that this packet gets; the same question gets the same one
  masquerade         whether it leaves with the node's address as its source
  source_after       its source and its destination when it leaves the node
  destination_after
  steps              how that came about, sentence by sentence

What is wrong with the manifests is told on standard error. Exit status: 0 if every question was answered, whatever the
verdict; 1 if one was not, or if there was nothing to read.")]
pub(super) struct Arguments {
    /// Ask what the agent would do with the YAML and JSON files in this folder and below; neither root nor a kernel is
    /// needed [default: the maps that an agent has pinned, which are read and not written]
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Where the packet comes from [default: what its source is: the node's own address host, one of the cluster CIDR
    /// pod, any other outside]
    #[arg(
        long = "in",
        value_enum,
        value_name = "PLACE",
        conflicts_with = "batch"
    )]
    origin: Option<Origin>,
    /// By which interface of the node the packet enters
    #[arg(long, value_name = "NAME", conflicts_with = "batch")]
    interface: Option<String>,
    /// Its protocol: tcp, udp or sctp
    #[arg(long, value_name = "PROTOCOL", value_parser = trace::protocol)]
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    proto: Option<Protocol>,
    /// Who sends it
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = trace::address)]
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    src: Option<SocketAddr>,
    /// To whom
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = trace::address)]
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    dst: Option<SocketAddr>,
    /// Answer the questions in this file, one a line, each with a line of JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Read what is said of the node from this file of settings of `waggle run`; flags beat it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    node: NodeOptions,
    #[command(flatten)]
    paths: Paths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Sentences
    Text,
    /// One JSON object
    Json,
}

/// Answers; false if a question of many could not be read. A reader that has gone away (`| head`) is no error.
pub(super) fn trace(arguments: &Arguments) -> Result<bool> {
    let has_gone = |error: &anyhow::Error| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match answer(arguments) {
        Err(error) if has_gone(&error) => Ok(true),
        other => other,
    }
}

fn answer(arguments: &Arguments) -> Result<bool> {
    // What is wrong with the question is said before anything is read.
    let question = question(arguments)?;
    let questions = arguments.batch.as_deref().map(questions).transpose()?;
    let tracer = read(arguments)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut all_read = true;
    if let Some(question) = question {
        let answer = tracer.ask(&question);
        let text = match arguments.output {
            Format::Text => table::harmless(&answer.text()).into_owned(),
            Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
        };
        out.write_all(text.as_bytes())?;
    }
    if let Some(questions) = questions {
        all_read = batch(&tracer, questions, &mut out)?;
    }
    out.flush()?;
    Ok(all_read)
}

/// What flags say, and where they say nothing, the file of --config.
fn settings(arguments: &Arguments) -> Result<Settings> {
    let settings = Settings {
        node: arguments.node.clone(),
        ..Settings::default()
    };
    match &arguments.config {
        Some(file) => settings.or_file(file),
        None => Ok(settings),
    }
}

fn read(arguments: &Arguments) -> Result<Tracer> {
    let settings = settings(arguments)?;
    match &arguments.manifests {
        Some(folder) => {
            let Read { tracer, warnings } = Tracer::of_manifests(folder, settings.agent()?)?;
            for warning in warnings {
                note(&warning.to_string());
            }
            Ok(tracer)
        }
        None => pinned(&arguments.paths, settings),
    }
}

/// Over the pinned maps. A running agent knows the names of services, and what these settings do not say of the node.
fn pinned(paths: &Paths, settings: Settings) -> Result<Tracer> {
    let folder = paths.root().maps();
    let (settings, view) = match ask(&paths.run_dir)? {
        Asked::Answered(state) => {
            let of_agent = Settings {
                node: state.settings,
                ..Settings::default()
            };
            (settings.or(&of_agent)?, Some(state.view))
        }
        Asked::NotRunning(why) => {
            note(&format!("{why}; services have no names then"));
            (settings, None)
        }
    };
    let place = settings.agent()?.place;
    Tracer::of_pinned(&folder, view.as_ref(), place).with_context(|| {
        format!(
            "{}; to ask about a folder of manifests, name it with --manifests",
            missing(&folder)
        )
    })
}

#[expect(clippy::print_stderr, reason = "notes beside the output")]
fn note(text: &str) {
    eprintln!("waggle: {text}");
}

fn question(arguments: &Arguments) -> Result<Option<Question>> {
    let (Some(protocol), Some(source), Some(destination)) =
        (arguments.proto, arguments.src, arguments.dst)
    else {
        return Ok(None);
    };
    let question = Question::new(arguments.origin, protocol, source, destination)?;
    Ok(Some(Question {
        interface: arguments.interface.clone(),
        ..question
    }))
}

fn questions(file: &Path) -> Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).with_context(|| {
        format!(
            "{} cannot be read: check the path after --batch",
            file.display()
        )
    })?;
    Ok(Box::new(BufReader::new(opened)))
}

/// Answers line by line, in order; false if a line could not be read.
fn batch(tracer: &Tracer, mut questions: Box<dyn BufRead>, out: &mut impl Write) -> Result<bool> {
    let mut all_read = true;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = questions
            .read_until(b'\n', &mut line)
            .context("the questions of --batch cannot be read on")?;
        if length == 0 {
            break;
        }
        let text = std::str::from_utf8(&line).context("no UTF-8 text");
        let asked = text.and_then(|text| Question::from_json(text.trim()));
        let answer = match asked {
            Ok(question) => serde_json::to_string(&tracer.ask(&question))?,
            Err(error) => {
                all_read = false;
                json!({"error": format!("line {number}: {error:#}")}).to_string()
            }
        };
        writeln!(out, "{answer}")?;
    }
    Ok(all_read)
}
