//! One file: documents, Lists, and what is wrong with them.
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::objects::{EndpointSlice, Endpoints, Metadata, Object, Pod, Service, ServiceCidr};

/// An object that the agent makes use of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manifest {
    Service(Box<Service>),
    Pod(Box<Pod>),
    EndpointSlice(Box<EndpointSlice>),
    Endpoints(Box<Endpoints>),
    ServiceCidr(Box<ServiceCidr>),
}

impl Manifest {
    /// Its kind and metadata.
    pub(super) fn identity(&self) -> (&'static str, &Metadata) {
        match self {
            Self::Service(object) => (Service::KIND, object.metadata()),
            Self::Pod(object) => (Pod::KIND, object.metadata()),
            Self::EndpointSlice(object) => (EndpointSlice::KIND, object.metadata()),
            Self::Endpoints(object) => (Endpoints::KIND, object.metadata()),
            Self::ServiceCidr(object) => (ServiceCidr::KIND, object.metadata()),
        }
    }
}

macro_rules! pick {
    ($($name:ident: $variant:ident => $type:ty,)*) => {
        impl Manifest {
            $(pub(super) fn $name(&self) -> Option<&$type> {
                if let Self::$variant(object) = self { Some(object) } else { None }
            })*
        }
    };
}
pick! {
    service: Service => Service,
    pod: Pod => Pod,
    slice: EndpointSlice => EndpointSlice,
    endpoints: Endpoints => Endpoints,
    service_cidr: ServiceCidr => ServiceCidr,
}

/// Where a file is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The document, counted from 1.
    pub(super) document: usize,
    /// The line in the file, counted from 1, if known.
    pub(super) line: Option<u64>,
    /// What is wrong.
    pub(super) what: String,
}

/// What is in a file. An object that cannot be read does not keep the others from being used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) objects: Vec<Manifest>,
    pub(super) problems: Vec<Problem>,
}

#[derive(Deserialize)]
struct List {
    items: Option<Vec<Value>>,
}

/// All objects of a YAML file (which may be JSON). Objects of kinds that the agent has no use for are skipped.
pub(super) fn parse_yaml(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, (first_line, document)) in documents(text).into_iter().enumerate() {
        let mut problem = |(line, what): (Option<u64>, String)| {
            parsed.problems.push(Problem {
                document: index + 1,
                line: line.map(|line| line + first_line),
                what,
            });
        };
        match yaml::<Value>(document) {
            Ok(Some(value)) => {
                let kind = value["kind"].as_str().unwrap_or_default().to_owned();
                let mut add = |object| parsed.objects.push(object);
                from_document(value, &mut add, &mut |what| {
                    problem(with_line(&kind, document, what));
                });
            }
            Ok(None) => {}
            Err(error) => problem(error),
        }
    }
    parsed
}

/// A value has no lines: what is wrong with it is found once more in the text.
fn with_line(kind: &str, document: &str, what: String) -> (Option<u64>, String) {
    let error = match kind {
        Service::KIND => yaml::<Service>(document).err(),
        Pod::KIND => yaml::<Pod>(document).err(),
        EndpointSlice::KIND => yaml::<EndpointSlice>(document).err(),
        Endpoints::KIND => yaml::<Endpoints>(document).err(),
        ServiceCidr::KIND => yaml::<ServiceCidr>(document).err(),
        _ => None,
    };
    error.unwrap_or((None, what))
}

/// All objects of a JSON file: one value, or several after each other.
pub(super) fn parse_json(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    for (index, value) in values.enumerate() {
        let mut problem = |line, what| {
            parsed.problems.push(Problem {
                document: index + 1,
                line,
                what,
            });
        };
        match value {
            Ok(value) => {
                let mut add = |object| parsed.objects.push(object);
                from_document(value, &mut add, &mut |what| problem(None, what));
            }
            Err(error) => problem(u64::try_from(error.line()).ok(), without_place(&error)),
        }
    }
    parsed
}

/// The objects of a document: one, or those of a List, whose items may be Lists: both parsers know how deep is too deep.
fn from_document(value: Value, add: &mut dyn FnMut(Manifest), problem: &mut dyn FnMut(String)) {
    let kind = value["kind"].as_str().unwrap_or_default();
    if !kind.ends_with("List") {
        match from_value(value) {
            Ok(object) => object.into_iter().for_each(add),
            Err(what) => problem(what),
        }
        return;
    }
    match serde_json::from_value::<List>(value) {
        Ok(list) => {
            for (index, item) in list.items.into_iter().flatten().enumerate() {
                from_document(item, add, &mut |what| {
                    problem(format!("item {} of the List: {what}", index + 1));
                });
            }
        }
        Err(error) => problem(error.to_string()),
    }
}

/// The message of `serde_json` without its place, which is said already.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place)
        .map_or(text.clone(), str::to_owned)
}

fn from_value(value: Value) -> Result<Option<Manifest>, String> {
    let Some(kind) = value["kind"].as_str().map(str::to_owned) else {
        return Err("it has no `kind`".to_owned());
    };
    let object = match kind.as_str() {
        Service::KIND => Manifest::Service(typed(value)?),
        Pod::KIND => Manifest::Pod(typed(value)?),
        EndpointSlice::KIND => Manifest::EndpointSlice(typed(value)?),
        Endpoints::KIND => Manifest::Endpoints(typed(value)?),
        ServiceCidr::KIND => Manifest::ServiceCidr(typed(value)?),
        _ => return Ok(None),
    };
    let (_, metadata) = object.identity();
    if metadata.name.as_ref().is_none_or(String::is_empty) {
        return Err("it has no `metadata.name`".to_owned());
    }
    Ok(Some(object))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<Box<T>, String> {
    let object = serde_json::from_value(value);
    object.map(Box::new).map_err(|error| error.to_string())
}

/// One document; `None` if there is nothing in it but comments. The error is a line in the document, from 1 on, and a
/// text.
fn yaml<T: DeserializeOwned>(document: &str) -> Result<Option<T>, (Option<u64>, String)> {
    let blank = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("---").unwrap_or(line).trim_start();
        line.is_empty() || line.starts_with('#') || line == "..."
    };
    if document.lines().all(blank) {
        return Ok(None);
    }
    // A file may be as long as it likes; what it says may not be much longer than that (aliases of aliases), nor so deep
    // that the stack ends. A panic of the parser is its bug, and one file.
    let length = document.len();
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: length.saturating_mul(2).max(1_000_000),
            max_nodes: length.max(250_000),
            max_total_scalar_bytes: length.max(64 << 20),
            max_depth: 64,
            flow_nesting_limit: 64,
        },
    };
    let parse = || serde_saphyr::from_str_with_options(document, options);
    match catch_unwind(AssertUnwindSafe(parse)) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(error)) => {
            let line = error
                .location()
                .map(|location| location.line())
                .filter(|line| *line > 0);
            Err((line, in_short(&error.to_string())))
        }
        Err(_) => Err((None, "the YAML parser gave up on it".to_owned())),
    }
}

/// The parser's message without its own idea of the line, and without the excerpt that follows.
fn in_short(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let text = match line.split_once(": ") {
        Some((place, text)) if place.starts_with("line ") => text,
        _ => line,
    };
    text.trim_end_matches(':').to_owned()
}

/// The documents of a YAML file and how many lines stand before each.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut position, mut line_number) = (0, 0, 0, 0);
    for line in text.split_inclusive('\n') {
        let is_separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_separator && position > start {
            let document = &text[start..position];
            // A comment above the first separator is no document of its own.
            let only_comment = document
                .lines()
                .all(|it| it.trim().is_empty() || it.starts_with(['#', '%']));
            if !(documents.is_empty() && only_comment) {
                documents.push((start_line, document));
                (start, start_line) = (position, line_number);
            }
        }
        position += line.len();
        line_number += 1;
    }
    documents.push((start_line, &text[start..]));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "kind: Service\nmetadata: {name: web}\n";

    fn names(parsed: &Parsed) -> Vec<String> {
        assert_eq!(parsed.problems, []);
        let names = parsed.objects.iter().map(|it| it.identity().1.name.clone());
        names.map(Option::unwrap).collect()
    }

    fn only_problem(parsed: Parsed) -> Problem {
        let [problem] = <[Problem; 1]>::try_from(parsed.problems).unwrap();
        problem
    }

    #[test]
    fn a_file_has_many_documents_and_lists_and_kinds_we_have_no_use_for() {
        let text = format!(
            "# a comment\n---\n{SERVICE}---\nkind: Deployment\nmetadata: {{name: d}}\n--- # empty\n---\n\
             kind: List\nitems:\n- {{kind: Pod, metadata: {{name: a}}}}\n- {{kind: ConfigMap, metadata: {{name: c}}}}\n"
        );
        assert_eq!(names(&parse_yaml(&text)), ["web", "a"]);
    }

    #[test]
    fn json_is_read_with_either_ending() {
        let text = r#"{"kind": "ServiceList", "items": [{"kind": "Service", "metadata": {"name": "web"}}]}
                      {"kind": "Pod", "metadata": {"name": "a"}}"#;
        assert_eq!(names(&parse_json(text)), ["web", "a"]);
        let text = r#"{"kind": "Pod", "metadata": {"name": "a"}}"#;
        assert_eq!(names(&parse_yaml(text)), ["a"]);
    }

    #[test]
    fn a_problem_names_document_and_line() {
        let wrong_type = format!(
            "{SERVICE}---\nkind: Service\nmetadata: {{name: b}}\nspec:\n  ports:\n  - port: eighty\n"
        );
        let broken = format!("{SERVICE}---\n{SERVICE}spec: {{ports: [\n");
        let cases = [
            (wrong_type.as_str(), 2, Some(8), "invalid i32"),
            (broken.as_str(), 2, None, ""),
            ("metadata: {name: a}\n", 1, None, "it has no `kind`"),
            (
                "kind: Pod\nmetadata: {}\n",
                1,
                None,
                "it has no `metadata.name`",
            ),
            (
                "kind: List\nitems: [{kind: Pod, metadata: {name: a}}, {kind: Pod}]\n",
                1,
                None,
                "item 2 of the List",
            ),
        ];
        for (text, document, line, what) in cases {
            let problem = only_problem(parse_yaml(text));
            assert_eq!(problem.document, document, "{problem:?}");
            assert!(
                line.is_none_or(|line| problem.line == Some(line)),
                "{problem:?}"
            );
            assert!(
                problem.what.contains(what) && !problem.what.is_empty(),
                "{problem:?}"
            );
        }
        let problem = only_problem(parse_json("{\"kind\": \"Pod\",\n}"));
        assert_eq!((problem.document, problem.line), (1, Some(2)));
    }

    #[test]
    fn objects_beside_an_unreadable_one_are_used() {
        let text = format!(
            "kind: Service\nmetadata: {{name: a}}\nspec: 5\n---\n{SERVICE}---\nkind: List\nitems:\n\
             - {{kind: Pod, metadata: 7}}\n- {{kind: Pod, metadata: {{name: b}}}}\n---\nkind: [\n"
        );
        let Parsed { objects, problems } = parse_yaml(&text);
        let documents: Vec<usize> = problems.iter().map(|it| it.document).collect();
        assert_eq!(documents, [1, 3, 4], "{problems:?}");
        let problems = Vec::new();
        assert_eq!(names(&Parsed { objects, problems }), ["web", "b"]);
    }

    #[test]
    fn lists_of_lists_are_lists() {
        let text = "kind: List\nitems:\n- kind: ServiceList\n  items: [{kind: Service, metadata: {name: web}}]\n\
                    - {kind: List, items: null}\n- {kind: PodList}\n";
        assert_eq!(names(&parse_yaml(text)), ["web"]);
        let wrong = text.replace("name: web", "nome: web");
        let problem = only_problem(parse_yaml(&wrong)).what;
        assert_eq!(
            problem,
            "item 1 of the List: item 1 of the List: it has no `metadata.name`"
        );
        let (open, close) = (
            r#"{"kind":"List","items":["#.repeat(5_000),
            "]}".repeat(5_000),
        );
        let problem = only_problem(parse_json(&format!("{open}{close}")));
        assert!(problem.what.contains("recursion limit"), "{problem:?}");
    }

    #[test]
    fn a_separator_inside_a_block_of_text_is_none() {
        let text = format!("{SERVICE}  \nannotation: |\n  ---\n  text\n");
        assert_eq!(parse_yaml(&text).objects.len(), 1);
    }
}
