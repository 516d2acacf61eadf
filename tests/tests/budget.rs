//! No program costs more than the budget file says: verified instructions and stack depth on Linux 6.1. On other
//! kernels the verifier counts otherwise; there only the kernel's own bound is asked to be far away.
#![expect(clippy::print_stdout, reason = "the figures, with --nocapture")]

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tests::{
    machine::budget::{self, Cost},
    machine::require::optional,
    require_root,
};

/// The budget, as of the build.
const BUDGET: &str = include_str!("../budget.txt");
const BUDGET_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/budget.txt");
/// The kernel whose figures the file holds.
const OLDEST: &str = "6.1.";
/// Any kernel gives up at a million instructions; a program that needs a quarter of that is in danger.
const ALARMING: u32 = 250_000;

/// The release of this kernel, and what each program of the object costs its verifier.
fn costs() -> Result<(String, BTreeMap<String, Cost>)> {
    let object = lb_userspace::datapath::object();
    let costs = budget::verify(object, &lb_common::DatapathConfig::DEFAULT)?;
    let release = nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned();
    for (name, cost) in &costs {
        println!("budget on {release}: {name:20} {cost}");
    }
    Ok((release, costs))
}

#[test]
fn no_program_comes_near_the_verifiers_own_limit() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let (_, costs) = costs()?;
    assert!(!costs.is_empty());
    for (name, cost) in &costs {
        assert!(cost.instructions < ALARMING, "{name}: {cost}");
    }
    Ok(())
}

#[test]
fn no_program_exceeds_its_budget() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let (release, costs) = costs()?;
    if !optional(
        release.starts_with(OLDEST),
        &format!("the budget is that of Linux {OLDEST}x; this is {release}"),
    ) {
        return Ok(());
    }
    if std::env::var_os("UPDATE_BUDGET").is_some_and(|value| value == "1") {
        return std::fs::write(BUDGET_FILE, budget::format(&costs)).context(BUDGET_FILE);
    }
    let allowed = budget::parse(BUDGET)?;
    let names = |costs: &BTreeMap<String, Cost>| costs.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&costs),
        names(&allowed),
        "programs of the object and of budget.txt, which becomes:\n{}",
        budget::format(&costs)
    );
    let over: Vec<_> = costs
        .iter()
        .filter(|(name, cost)| {
            let allowed = allowed[*name];
            cost.instructions > allowed.instructions || cost.stack > allowed.stack
        })
        .map(|(name, cost)| format!("{name}: {cost}, budget {}", allowed[name]))
        .collect();
    assert!(
        over.is_empty(),
        "over the budget:\n{}\nIf it is worth it, tests/budget.txt becomes:\n{}",
        over.join("\n"),
        budget::format(&costs)
    );
    Ok(())
}
