//! From manifests to maps, step by step: every file in `tests/scenarios`.
use std::path::Path;

use tests::cluster::scenario;

/// Plays `scenarios/NAME.txt`.
fn play(name: &str) -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.txt"));
    let scratch = format!("waggle-scenario-{name}-{}", std::process::id());
    let scratch = std::env::temp_dir().join(scratch);
    std::fs::create_dir_all(&scratch)?;
    let result = scenario::play(&file, &scratch);
    std::fs::remove_dir_all(&scratch)?;
    result
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            if let Err(error) = play(stringify!($name)) {
                panic!("{error:#}");
            }
        })*

        #[test]
        fn every_scenario_file_is_played() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let mut played = [$(concat!(stringify!($name), ".txt")),*];
            played.sort_unstable();
            assert_eq!(files, played);
        }
    };
}

scenarios! {
    address_exchange
    affinity
    bad_input
    clusterip
    dual_stack
    endpoints_object
    endpoints_near_and_far
    external_addresses
    full_maps
    my_service_example
    other_family
    pods_by_labels
    restart
    restart_with_a_broken_file
    service_cidrs
    short_forms
    terminating
    too_many_endpoints
    two_slices
    what_slices_say
    who_was_first
}
