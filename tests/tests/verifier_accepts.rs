//! Every program of the object is accepted by the verifier of the running kernel.
use anyhow::Result;
use lb_common::DatapathConfig;
use tests::{machine::budget, require_root};

#[test]
fn every_program_loads_into_this_kernel() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let object = lb_userspace::datapath::object();
    let programs = aya_obj::Object::parse(object)?.programs.len();
    assert!(programs >= 4, "only {programs} programs");
    // Programs for processors that reorder reads have barriers, which the verifier else removes.
    for reorders_reads in [0, 1] {
        let config = DatapathConfig {
            reorders_reads,
            ..DatapathConfig::DEFAULT
        };
        assert_eq!(budget::verify(object, &config)?.len(), programs);
    }
    Ok(())
}
