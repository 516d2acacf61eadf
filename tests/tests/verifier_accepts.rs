//! Every program of the object is accepted by the verifier of the running kernel.
use anyhow::Result;
use tests::{budget, require_root};

#[test]
fn every_program_loads_into_this_kernel() -> Result<()> {
    if !require_root() {
        return Ok(());
    }
    let object = lb_userspace::datapath::object()?;
    let costs = budget::verify(object, &lb_common::DatapathConfig::DEFAULT)?;
    let programs = aya_obj::Object::parse(object)?.programs.len();
    assert_eq!(costs.len(), programs);
    assert!(programs >= 4, "only {programs} programs");
    Ok(())
}
