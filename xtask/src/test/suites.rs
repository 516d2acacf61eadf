//! The test programs: built by cargo, found by what cargo says about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Layer;
use crate::{process, report, workspace};

/// One test program.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Suite {
    pub(super) package: String,
    pub(super) name: String,
    pub(super) executable: PathBuf,
    /// The folder of the package, which tests are started in.
    pub(super) folder: PathBuf,
    /// The names of the tests to run; empty for all.
    pub(super) only: Vec<String>,
}

/// Builds the programs of a layer; for virtual machines those of the layers kernel and netns.
pub(super) fn build(layer: Layer) -> Result<Vec<Suite>> {
    if layer == Layer::Vm {
        return Ok([build_layer(Layer::Kernel)?, build_layer(Layer::Netns)?].concat());
    }
    build_layer(layer)
}

fn build_layer(layer: Layer) -> Result<Vec<Suite>> {
    let files = suite_files()?;
    let mut cargo = process::cargo();
    cargo.args([
        "test",
        "--no-run",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    if layer == Layer::Unit {
        cargo.args(["--workspace", "--lib", "--bins"]);
    } else {
        cargo.args(["--package", "tests"]);
    }
    let wanted = files.iter().filter(|name| Layer::of_suite(name) == layer);
    let mut is_anything = layer == Layer::Unit;
    for name in wanted {
        cargo.args(["--test", name]);
        is_anything = true;
    }
    if !is_anything {
        return Ok(Vec::new());
    }
    report::step(
        &format!("building the tests of the layer {}", layer.name()),
        || {
            let result = cargo
                .stderr(Stdio::inherit())
                .output()
                .with_context(|| format!("cannot start {}", process::line(&cargo)))?;
            if !result.status.success() {
                bail!("the tests do not build: {} failed", process::line(&cargo));
            }
            let said = String::from_utf8_lossy(&result.stdout);
            let mut suites: Vec<Suite> = said.lines().filter_map(suite).collect();
            suites.sort_by_key(Suite::title);
            Ok(suites)
        },
    )
}

/// The names of the suites in tests/tests: files, and folders with a `main.rs`, as cargo finds them.
fn suite_files() -> Result<Vec<String>> {
    let folder = workspace::root().join("tests/tests");
    let mut names = Vec::new();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let is_file = path.extension().is_some_and(|extension| extension == "rs");
        if (is_file || path.join("main.rs").is_file())
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The test program that a line of cargo's JSON tells of, if it does.
fn suite(line: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message.get("reason")? != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?;
    Some(Suite {
        package: folder.file_name()?.to_string_lossy().into_owned(),
        name: message["target"]["name"].as_str()?.to_owned(),
        executable: message.get("executable")?.as_str()?.into(),
        folder: folder.to_path_buf(),
        only: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_files_and_folders_with_a_main_file() {
        let found = suite_files().unwrap();
        for (name, is_suite) in [
            ("scenarios", true),
            ("datapath_specification", true),
            ("player", false),
            ("datapath_matches_reference.regressions", false),
        ] {
            assert_eq!(found.iter().any(|it| it == name), is_suite, "{name}");
        }
    }

    #[test]
    fn test_programs_are_told_from_other_artifacts() {
        let line = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/lb-common/Cargo.toml",
                "target":{{"name":"lb_common","kind":["lib"]}},"profile":{{"test":{test}}},
                "executable":"/w/target/debug/deps/lb_common-1"}}"#
            )
        };
        let expected = Suite {
            package: "lb-common".to_owned(),
            name: "lb_common".to_owned(),
            executable: "/w/target/debug/deps/lb_common-1".into(),
            folder: "/w/lb-common".into(),
            only: Vec::new(),
        };
        assert_eq!(suite(&line(true)), Some(expected));
        assert_eq!(suite(&line(false)), None);
        assert_eq!(suite(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(suite("no json"), None);
    }
}
