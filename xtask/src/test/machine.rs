//! Test programs and the scenario run in virtual machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::suite_run::{SCENARIO, SuiteRun};
use super::suites::Suite;
use super::tally::Tally;
use super::{Layer, host};
use crate::report::Progress;
use crate::vm::{self, GuestCommand, Job, Kernel, Line, kernel};
use crate::{control_plane, report, run, workspace};

/// Tests of namespaces that the short form runs on the oldest kernel: there the programs are
/// attached by clsact, which a newer kernel does only beside others' filters.
const OTHER_ON_OLDEST: (&str, &[&str]) = (
    "netns_clusterip",
    &[
        "pods_meet_all_backends_over_a_routed_network",
        "pods_meet_all_backends_over_a_bridge",
        "a_pod_reaches_itself_as_its_node_over_a_routed_network",
    ],
);

/// Suites that ask nothing but the verifier: it differs from kernel to kernel, and a program that
/// the oldest and the newest accept need not please one in between.
const VERIFIER: &[&str] = &["verifier_accepts"];

/// Long suites that differ from kernel to kernel in nothing: of several machines none runs them.
const ON_ANY_KERNEL: &[&str] = &["kernel_flood", "kernel_rules"];

/// All suites of a machine together, emulated on two slow cores.
const TIME_LIMIT: Duration = Duration::from_mins(40);

/// Folders whose files tests may open by their path, on both machines the same.
const DATA: &[&str] = &["tests", "examples", "lb-userspace/deploy", "target/bpf"];

/// Runs the suites of a layer in a machine of the default kernel.
pub(super) fn layer(suites: &[Suite], filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    boot(kernel::default(), suites, false, filter, tally)
}

/// Runs the layers kernel and netns and the scenario on every kernel.
pub(super) fn matrix(suites: &[Suite], filter: Option<&str>, tally: &mut Tally) {
    let mut suites = suites.to_vec();
    suites.retain(|suite| !ON_ANY_KERNEL.contains(&suite.name.as_str()));
    for kernel in kernel::matrix() {
        boot_or_fail(kernel, &suites, filter.is_none(), filter, tally);
    }
}

/// The short form of [`matrix`], after the same suites ran elsewhere: on the oldest and the newest
/// kernel the layer kernel and the scenario, on the newest the tests of namespaces that had to be skipped there;
/// on those in between the verifier alone. `in_machine` tells that the layers ran in a machine of
/// the default kernel, whose verifier then has spoken.
pub(super) fn short_matrix(suites: &[Suite], in_machine: bool, tally: &mut Tally) {
    let of_layer = |layer| {
        let chosen = suites
            .iter()
            .filter(move |it| Layer::of_suite(&it.name) == layer);
        chosen.cloned().collect::<Vec<Suite>>()
    };
    let (kernel_suites, netns_suites) = (of_layer(Layer::Kernel), of_layer(Layer::Netns));
    let kernels = kernel::matrix();
    for (place, kernel) in kernels.iter().enumerate() {
        let is_newest = place + 1 == kernels.len();
        let is_oldest = place == 0 && !is_newest;
        let is_end = is_oldest || is_newest;
        let mut suites = kernel_suites.clone();
        if in_machine && *kernel == kernel::default() {
            suites.clear();
        } else if !is_end {
            suites.retain(|suite| VERIFIER.contains(&suite.name.as_str()));
        }
        suites.retain(|suite| !ON_ANY_KERNEL.contains(&suite.name.as_str()));
        for suite in netns_suites.iter().filter(|_| is_end) {
            let mut suite = suite.clone();
            suite.only = tally.skipped_in(&suite.title());
            let (other, its_tests) = OTHER_ON_OLDEST;
            if is_oldest && suite.name == other {
                suite.only = its_tests.iter().map(|name| (*name).to_owned()).collect();
                suites.push(suite);
            } else if is_newest && !suite.only.is_empty() {
                suites.push(suite);
            }
        }
        boot_or_fail(kernel, &suites, is_end, None, tally);
    }
}

/// Boots one kernel of several; that it cannot be had, or not be booted, is one failed test.
fn boot_or_fail(
    kernel: &str,
    suites: &[Suite],
    with_scenario: bool,
    filter: Option<&str>,
    tally: &mut Tally,
) {
    if let Err(error) = boot(kernel, suites, with_scenario, filter, tally) {
        let command = format!("cargo xtask run --kernel {kernel}");
        tally.add_error(&format!("Linux {kernel}"), &error, &command);
    }
}

/// Boots one kernel and runs the suites in it.
fn boot(
    kernel: &str,
    suites: &[Suite],
    with_scenario: bool,
    filter: Option<&str>,
    tally: &mut Tally,
) -> Result<()> {
    if suites.is_empty() && !with_scenario {
        return Ok(());
    }
    let kernel = Kernel::find(kernel)?;
    let mut job = job(&kernel, suites, filter)?;
    let place = format!("Linux {}", kernel.release);
    let mut titles: Vec<String> = suites.iter().map(Suite::title).collect();
    if with_scenario {
        vm::build(run::PROGRAMS)?;
        run::add_scenario(&mut job, &[]);
        titles.push(SCENARIO.to_owned());
    }
    let mut current: Option<SuiteRun> = None;
    let mut ended = 0;
    let progress = Progress::default();
    let what = format!("tests in a virtual machine with {place}");
    let result = report::step_with(&what, &progress, || {
        vm::run(&job, &kernel, &mut |line| match *line {
            Line::Begins(number) => {
                current = titles
                    .get(number - 1)
                    .map(|title| SuiteRun::new(title, Some(&place)));
            }
            Line::Text(text) => {
                if let Some(run) = &mut current {
                    run.line(text);
                    progress.set(run.progress());
                }
            }
            Line::Exited(number, status, took) => {
                ended = number;
                if let Some(run) = current.take() {
                    host::end(run, status, took, tally);
                }
            }
            Line::Notice(text) => report::note(text),
            Line::ReachedInit(_) | Line::Verdict(_) => {}
        })
    });
    if let Err(error) = result {
        // The machine died: whatever it had not finished failed.
        for title in titles.iter().skip(ended) {
            let run = SuiteRun::new(title, Some(&place));
            tally.add_error(run.title(), &error, "cargo xtask test vm");
        }
    }
    Ok(())
}

fn job(kernel: &Kernel, suites: &[Suite], filter: Option<&str>) -> Result<Job> {
    let waggle = vm::program("waggle");
    let mut variables = vec![
        ("WAGGLE_BIN".to_owned(), waggle.display().to_string()),
        ("WAGGLE_REQUIRE_ROOT".to_owned(), "1".to_owned()),
        ("RUST_BACKTRACE".to_owned(), "0".to_owned()),
    ];
    let mut data = Vec::new();
    for folder in DATA {
        files_below(&workspace::root().join(folder), &mut data)?;
    }
    let mut programs = vec![waggle];
    if suites.iter().any(|suite| {
        matches!(
            Layer::of_suite(&suite.name),
            Layer::Kubernetes | Layer::Peers
        )
    }) {
        let assets = control_plane::assets()?;
        for entry in fs::read_dir(&assets)? {
            programs.push(entry?.path());
        }
        variables.push((
            "KUBEBUILDER_ASSETS".to_owned(),
            assets.display().to_string(),
        ));
    }
    programs.extend(suites.iter().map(|suite| suite.executable.clone()));
    let command = |suite: &Suite| {
        let folder = suite.folder.display().to_string();
        let mut variables = variables.clone();
        variables.push(("CARGO_MANIFEST_DIR".to_owned(), folder.clone()));
        variables.push(("PWD".to_owned(), folder));
        let mut words = vec![suite.executable.display().to_string()];
        if suite.only.is_empty() {
            words.extend(filter.map(str::to_owned));
        } else {
            words.push("--exact".to_owned());
            words.extend(suite.only.clone());
        }
        GuestCommand { variables, words }
    };
    let at_same_place = |path: PathBuf| (path.clone(), path);
    Ok(Job {
        name: format!("test-{}", kernel.release),
        commands: suites.iter().map(command).collect(),
        programs: programs.into_iter().map(at_same_place).collect(),
        data: data.into_iter().map(at_same_place).collect(),
        time_limit: TIME_LIMIT,
        is_interactive: false,
        is_probe: false,
    })
}

/// Every file below a folder that is not Rust's; nothing if the folder is not there.
fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list {}", folder.display()))?
            .path();
        if path.is_dir() {
            files_below(&path, files)?;
        } else if path.extension().is_none_or(|extension| extension != "rs") {
            files.push(path);
        }
    }
    Ok(())
}
