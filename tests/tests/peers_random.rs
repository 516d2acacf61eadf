//! Random Services and slices, published by a real API server, asked of Waggle and of kube-proxy: clients meet the same.
//! `WAGGLE_PEERS_ROUNDS=20 cargo xtask test peers` tries more of them than is done otherwise.
//! Needs the programs of the control plane: `cargo xtask test peers`.

use anyhow::{Context as _, Result, ensure};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tests::oracle::kubernetes_rules::Objects;
use tests::oracle::kubernetes_rules::random::objects_of;
use tests::peers::{Object, Peers};
use tests::require_root;

/// How many Services are there at a time.
const SERVICES: usize = 16;

/// How many sets of objects are tried, one after the other.
const ROUNDS: u8 = 1;

/// The objects of a round; the same in each run.
fn objects(round: u8) -> Result<Objects> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[round; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let tree = objects_of(SERVICES..=SERVICES).new_tree(&mut runner);
    let tree = tree.map_err(|reason| anyhow::anyhow!("{reason}"))?;
    Ok(tree.current())
}

fn rounds() -> Result<u8> {
    let wanted = std::env::var("WAGGLE_PEERS_ROUNDS").ok();
    let wanted = wanted.map(|text| text.parse().context("WAGGLE_PEERS_ROUNDS"));
    Ok(wanted.transpose()?.unwrap_or(ROUNDS))
}

#[test]
fn clients_of_random_services_meet_the_same_as_with_kube_proxy() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let mut peers = Peers::start()?;
    let mut problems = Vec::new();
    for round in 1..=rounds()? {
        let Objects { services, slices } = objects(round)?;
        let services = services.into_iter().map(|it| Object::Service(Box::new(it)));
        let slices = slices.into_iter().map(|it| Object::Slice(Box::new(it)));
        let refused = peers.publish(services.chain(slices).collect())?;
        let published = peers.services()?;
        ensure!(
            published.len() > SERVICES / 2,
            "the API server refuses too many: {refused:#?}"
        );
        let questions = peers.questions(&published);
        let differences = peers.compare(&questions)?;
        tests::machine::require::measured(&format!(
            "round {round}: {} Services, {} questions, {} refused",
            published.len(),
            questions.len(),
            refused.len()
        ));
        for difference in differences {
            let service = &difference.question.service;
            let objects = peers.described(service)?;
            problems.push(format!("round {round}: {difference}\n    {objects}"));
        }
    }
    ensure!(
        problems.is_empty(),
        "{} differences:\n{}",
        problems.len(),
        problems.join("\n")
    );
    Ok(())
}
