//! `cargo xtask test`: every test, in layers, each where it can run; skips are printed and counted.

mod host;
mod machine;
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
pub fn run(options: &Options) -> Result<()> {
    prepare(options)?;
    let mut tally = Tally::default();
    let filter = options.name.as_deref();
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
    let in_machine = options.vm || !process::is_root();
    for layer in layers {
        match layer {
            Layer::Unit => unit(filter, &mut tally)?,
            Layer::Vm if options.layer.is_none() => machine::short_matrix(in_machine, &mut tally)?,
            Layer::Vm => machine::matrix(filter, &mut tally)?,
            Layer::Kernel | Layer::Netns | Layer::Kubernetes | Layer::Peers if in_machine => {
                machine::layer(layer, filter, &mut tally)?;
            }
            Layer::Kernel | Layer::Netns => on_host(layer, &[], filter, &mut tally)?,
            Layer::Kubernetes | Layer::Peers => {
                let assets = control_plane::assets()?.display().to_string();
                let mut variables = vec![("KUBEBUILDER_ASSETS", assets.as_str())];
                if options.layer == Some(Layer::Peers) && std::env::var_os(ROUNDS).is_none() {
                    variables.push((ROUNDS, "4"));
                }
                on_host(layer, &variables, filter, &mut tally)?;
            }
        }
    }
    finish(&tally, filter)
}

/// Installs and builds what the tests of these layers use.
fn prepare(options: &Options) -> Result<()> {
    packages::ensure(&[packages::BUILD])?;
    if options.layer != Some(Layer::Unit) {
        packages::ensure(&[packages::SCENARIO, packages::TESTS])?;
    }
    ebpf::build()?;
    if matches!(options.layer, None | Some(Layer::Kernel)) {
        ebpf::build_floor()?;
    }
    report::step("building waggle", || vm::build(&["waggle"]))
}

fn unit(filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    let suites = suites::build(Layer::Unit)?;
    println!("==> tests that need no root");
    let waggle = vm::program("waggle").display().to_string();
    for suite in &suites {
        host::run(suite, &[("WAGGLE_BIN", &waggle)], filter, tally)?;
    }
    host::documentation(filter, tally)
}

fn on_host(
    layer: Layer,
    variables: &[(&str, &str)],
    filter: Option<&str>,
    tally: &mut Tally,
) -> Result<()> {
    let suites = suites::build(layer)?;
    println!("==> tests of the layer {} on this machine", layer.name());
    let waggle = vm::program("waggle").display().to_string();
    let mut variables = variables.to_vec();
    variables.push(("WAGGLE_BIN", &waggle));
    // Root is there, so whatever else is missing is a failure, not a reason to skip.
    variables.push(("WAGGLE_REQUIRE_ROOT", "1"));
    for suite in &suites {
        host::run(suite, &variables, filter, tally)?;
    }
    Ok(())
}

fn finish(tally: &Tally, filter: Option<&str>) -> Result<()> {
    for (suite, test, reason) in tally.skips() {
        println!("skipped: {suite} {test}: {reason}");
    }
    for (suite, test) in tally.failures() {
        println!("FAILED: {suite} {test}");
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
