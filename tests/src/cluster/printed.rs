//! What `waggle` prints: the same in every format, the same when asked again.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::agent_process::Agent;

/// The formats that all commands know.
const FORMATS: [&str; 4] = ["table", "wide", "json", "yaml"];

/// Fields that tell how long ago something was, or count what goes on.
const MOVING: &[&str] = &[
    "ageMs",
    "changedMs",
    "counters",
    "idleSeconds",
    "lastEventMs",
    "sweep",
    "uptimeSeconds",
    "used",
];

/// What `waggle <words>` prints; asked twice, in the same bytes unless it `moves`, then but for numbers.
fn stable(agent: &Agent, words: &str, moves: bool) -> Result<String> {
    let [first, second] = [agent.waggle(words)?, agent.waggle(words)?];
    let [one, other] = if moves {
        [masked(&first), masked(&second)]
    } else {
        [first.clone(), second]
    };
    ensure!(
        one == other,
        "`waggle {words}` prints\n{one}\nand then\n{other}"
    );
    ensure!(!first.contains('\x1b'), "`waggle {words}` colours a pipe");
    ensure!(first.ends_with('\n'), "`waggle {words}` ends within a line");
    ensure!(
        !first.lines().any(|line| line.ends_with(' ')),
        "`waggle {words}` leaves spaces at the end of lines"
    );
    Ok(first)
}

/// The text with one digit for every number, and one space for as many as align a column.
fn masked(text: &str) -> String {
    let digits = text.replace(|letter: char| letter.is_ascii_digit(), "0");
    let mut masked: String = digits
        .lines()
        .flat_map(|line| line.split_whitespace().chain(["\n"]))
        .flat_map(|word| [word, " "])
        .collect();
    while masked.contains("00") {
        masked = masked.replace("00", "0");
    }
    masked
}

/// The value without what differs from moment to moment.
fn without_moving(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !MOVING.contains(&name.as_str()));
            for field in fields.values_mut() {
                *field = without_moving(field.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = without_moving(item.take());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

/// Asks in every format; gives the table, the wide table, and the value that JSON and YAML agree on.
pub fn in_all_formats(
    agent: &Agent,
    command: &str,
    moves: [bool; 4],
) -> Result<(String, String, Value)> {
    let mut texts = Vec::new();
    for (format, moves) in FORMATS.into_iter().zip(moves) {
        texts.push(stable(agent, &format!("{command} -o {format}"), moves)?);
    }
    ensure!(
        masked(&agent.waggle(command)?) == masked(&texts[0]),
        "`waggle {command}` is no table"
    );
    let from_json: Value = serde_json::from_str(&texts[2]).context("JSON")?;
    let from_yaml: Value = serde_saphyr::from_str(&texts[3]).context("YAML")?;
    ensure!(
        without_moving(from_json.clone()) == without_moving(from_yaml),
        "JSON and YAML differ:\n{}\n{}",
        texts[2],
        texts[3]
    );
    let mut texts = texts.into_iter();
    let (table, wide) = (texts.next(), texts.next());
    Ok((
        table.context("a table")?,
        wide.context("a table")?,
        from_json,
    ))
}

/// The cells below a header, of the row whose text contains all of `parts`.
pub fn row<'a>(table: &'a str, header: &str, parts: &[&str]) -> Result<Vec<&'a str>> {
    let mut lines = table.lines();
    let shown: Vec<_> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    ensure!(shown.join(" ") == header, "the header is {shown:?}");
    let mut rows = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
    let row = rows
        .next()
        .with_context(|| format!("no row of {parts:?} in\n{table}"))?;
    ensure!(rows.next().is_none(), "two rows of {parts:?} in\n{table}");
    Ok(row
        .split("   ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect())
}

/// The element of a list that has these fields.
pub fn element<'a>(list: &'a Value, fields: &Value) -> Result<&'a Value> {
    let has_fields = |element: &&Value| {
        let fields = fields.as_object().into_iter().flatten();
        fields.fold(true, |all, (name, value)| all && element[name] == *value)
    };
    let elements = list.as_array().context("a list")?;
    let found = elements.iter().find(has_fields);
    found.with_context(|| format!("nothing with {fields} in {list:#}"))
}
