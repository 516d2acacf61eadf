//! The datapath does what the naive reference does: same verdict, same bytes, same flows remembered, over random
//! stories of packets, time, backends that come and go, and tables that are full or forgetful.
mod player;

use player::Player;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{FileFailurePersistence, TestRunner},
};
use tests::packets::generate::{Cluster, long_story};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: player::cases(400),
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_story_ends_as_the_reference_says(seed: u64, story in long_story(150)) {
        let mut player = Player::new(Cluster::new(seed));
        for event in &story {
            player.play(event);
        }
    }
}

#[test]
fn stories_reach_every_verdict() {
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..300 {
        let story = long_story(150).new_tree(&mut runner).unwrap().current();
        let mut player = Player::new(Cluster::new(seed));
        for event in &story {
            player.play(event);
        }
        for (verdict, count) in player.verdicts {
            *seen.entry(verdict).or_default() += count;
        }
    }
    for verdict in [
        "Pass(NotIp)",
        "Pass(OtherProtocol)",
        "Pass(Malformed)",
        "Pass(LaterFragment)",
        "Pass(NotOurs)",
        "Pass(Direct)",
        "Translated(Request)",
        "Translated(Reply)",
        "Translated(MasqueradedRequest)",
        "Translated(MasqueradedReply)",
        "Drop(NoBackend)",
        "Drop(NoFlow)",
        "Drop(BackendGone)",
        "Translated(IcmpError)",
        "Translated(LaterFragment)",
        "Drop(Redirect)",
        "Drop(NoMasqueradeAddress)",
    ] {
        let count = seen.get(verdict).copied().unwrap_or_default();
        assert!(
            count >= 10,
            "stories come to {verdict} {count} times only: {seen:#?}"
        );
    }
}
