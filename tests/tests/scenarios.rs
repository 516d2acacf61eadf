//! From manifests to maps, step by step: every file in `tests/scenarios`.
use std::path::Path;

use tests::scenario;

/// Plays `scenarios/NAME.txt`.
fn play(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.txt"));
    let scratch =
        std::env::temp_dir().join(format!("waggle-scenario-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let result = scenario::play(&file, &scratch);
    std::fs::remove_dir_all(&scratch).unwrap();
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            play(stringify!($name));
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
    bad_input
    clusterip
    dual_stack
    endpoints_object
    full_maps
    my_service_example
    pods_by_labels
    restart
    terminating
    too_many_endpoints
    two_slices
}
