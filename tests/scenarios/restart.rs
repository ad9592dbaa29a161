//! What survives: agents, TPMs and the cloud go away and come back, in the ways they do in the field.

use edgeward_tests::Lab;
use edgeward_tests::cloud::CloudOptions;

use crate::traffic::{await_reach, serve};

const STATUS: u16 = 8080;

#[test]
fn power_cuts_of_node_and_cloud_cost_no_access() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;

    a.reboot()?;
    a.start()?;
    await_reach(&a, &b, STATUS)?;

    lab.cloud.kill()?;
    assert!(
        crate::traffic::reaches(&a, &b, STATUS, 3)?,
        "a bind does not need the cloud to go on"
    );
    lab.cloud.start()?;
    await_reach(&a, &b, STATUS)
}

#[test]
fn a_node_that_restarts_without_the_cloud_resumes_what_its_leases_allow() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;

    lab.cloud.kill()?;
    // Both must know that the cloud is gone: a boot statement counts only for a verifier that hears nobody.
    std::thread::sleep(std::time::Duration::from_secs(31));
    a.reboot()?;
    a.start()?;
    await_reach(&a, &b, STATUS)
}
