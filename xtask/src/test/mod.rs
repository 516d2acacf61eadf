//! `cargo xtask test`: every test, in layers, each where it can run; skips are printed and counted.

mod failure;
mod host;
mod machine;
mod suite_run;
mod suites;
mod tally;

use anyhow::{Result, bail};

use crate::debian::packages;
use crate::{control_plane, ebpf, process, report, vm};
use suites::Suite;
use tally::Tally;

/// How many random sets of objects are tried beside kube-proxy: one of them with all other tests, more by name.
const ROUNDS: &str = "WAGGLE_PEERS_ROUNDS";

/// What the command line says.
#[derive(clap::Args)]
pub struct Options {
    /// One layer only
    layer: Option<Layer>,
    /// Only tests whose name contains this
    name: Option<String>,
    /// Run what needs root in a virtual machine, even if we are root
    #[arg(long)]
    vm: bool,
}

/// A layer of tests: what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layer {
    /// What needs no root
    Unit,
    /// The kernel programs in this kernel (root)
    Kernel,
    /// Namespaces with real sockets (root)
    Netns,
    /// A real Kubernetes control plane (root)
    Kubernetes,
    /// Real kube-proxy beside Waggle (root)
    Peers,
    /// The kernel and netns layers and the scenario in virtual machines of several kernels
    Vm,
}

/// Runs the tests; an error if one failed.
///
/// A layer that cannot run, for a package or a kernel cannot be had, counts as one failed test; the
/// other layers run. Code that does not build ends the command.
pub fn run(options: &Options) -> Result<()> {
    prepare(options)?;
    let mut tally = Tally::default();
    let layers = match options.layer {
        Some(layer) => vec![layer],
        None => vec![
            Layer::Unit,
            Layer::Kernel,
            Layer::Netns,
            Layer::Kubernetes,
            Layer::Peers,
            Layer::Vm,
        ],
    };
    for layer in layers {
        let suites = suites::build(layer)?;
        if let Err(error) = run_layer(layer, &suites, options, &mut tally) {
            let title = format!("the layer {}", layer.name());
            tally.add_error(
                &title,
                &error,
                &format!("cargo xtask test {}", layer.name()),
            );
        }
    }
    finish(&tally, options.name.as_deref())
}

/// Builds what the tests of these layers use.
fn prepare(options: &Options) -> Result<()> {
    packages::ensure(&[packages::BUILD])?;
    ebpf::build()?;
    if matches!(options.layer, None | Some(Layer::Kernel)) {
        ebpf::build_floor()?;
    }
    report::step("building waggle", || vm::build(&["waggle"]))
}

fn run_layer(layer: Layer, suites: &[Suite], options: &Options, tally: &mut Tally) -> Result<()> {
    let filter = options.name.as_deref();
    if layer == Layer::Unit {
        println!("==> tests that need no root");
        on_host(suites, &[], filter, tally)?;
        return host::documentation(filter, tally);
    }
    packages::ensure(&[packages::SCENARIO, packages::TESTS])?;
    let in_machine = options.vm || !process::is_root();
    if layer == Layer::Vm {
        match options.layer {
            None => machine::short_matrix(suites, in_machine, tally),
            Some(_) => machine::matrix(suites, filter, tally),
        }
        return Ok(());
    }
    if in_machine {
        return machine::layer(suites, filter, tally);
    }
    // Root is there, so whatever else is missing is a failure, not a reason to skip.
    let mut variables = vec![("WAGGLE_REQUIRE_ROOT", "1")];
    let assets;
    if matches!(layer, Layer::Kubernetes | Layer::Peers) {
        assets = control_plane::assets()?.display().to_string();
        variables.push(("KUBEBUILDER_ASSETS", &assets));
    }
    if options.layer == Some(Layer::Peers) && std::env::var_os(ROUNDS).is_none() {
        variables.push((ROUNDS, "4"));
    }
    println!("==> tests of the layer {} on this machine", layer.name());
    on_host(suites, &variables, filter, tally)
}

fn on_host(
    suites: &[Suite],
    variables: &[(&str, &str)],
    filter: Option<&str>,
    tally: &mut Tally,
) -> Result<()> {
    let waggle = vm::program("waggle").display().to_string();
    let mut variables = variables.to_vec();
    variables.push(("WAGGLE_BIN", &waggle));
    for suite in suites {
        host::run(suite, &variables, filter, tally)?;
    }
    Ok(())
}

fn finish(tally: &Tally, filter: Option<&str>) -> Result<()> {
    for (suite, test, reason) in tally.skips() {
        println!("skipped: {suite} {test}: {reason}");
    }
    if !tally.failures().is_empty() {
        println!("==> failed tests, each with the command that runs it alone");
    }
    for failure in tally.failures() {
        println!("{failure}\n    {}", failure.command);
    }
    let counts = tally.counts();
    println!("{counts}");
    if counts.failed > 0 {
        bail!("{} tests failed", counts.failed);
    }
    if let Some(name) = filter
        && counts.is_empty()
    {
        bail!("no test has a name that contains {name:?}");
    }
    Ok(())
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Kernel => "kernel",
            Self::Netns => "netns",
            Self::Kubernetes => "kubernetes",
            Self::Peers => "peers",
            Self::Vm => "vm",
        }
    }

    /// The layer of a suite of the package `tests`, by the name of its file.
    fn of_suite(name: &str) -> Self {
        let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
        if begins(&["kernel_", "verifier_", "budget"]) {
            Self::Kernel
        } else if begins(&["netns_"]) {
            Self::Netns
        } else if begins(&["kubernetes_"]) {
            Self::Kubernetes
        } else if begins(&["peers_"]) {
            Self::Peers
        } else {
            Self::Unit
        }
    }
}

impl Suite {
    /// How the suite is called in what a person reads.
    fn title(&self) -> String {
        match self.package.as_str() {
            "tests" => self.name.clone(),
            package if package == self.name.replace('_', "-") => package.to_owned(),
            package => format!("{package} {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_say_the_layer() {
        assert_eq!(Layer::of_suite("verifier_accepts"), Layer::Kernel);
        assert_eq!(Layer::of_suite("kernel_matches_host"), Layer::Kernel);
        assert_eq!(Layer::of_suite("netns_clusterip"), Layer::Netns);
        assert_eq!(Layer::of_suite("kubernetes_scenario"), Layer::Kubernetes);
        assert_eq!(Layer::of_suite("peers_rules"), Layer::Peers);
        assert_eq!(Layer::of_suite("plan_properties"), Layer::Unit);
    }
}
