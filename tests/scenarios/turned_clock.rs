//! A wall clock that was turned back: the cloud sees it while there is a link, and the node holds still where there is
//! none. The kernel's boot id and the wall clock are the test's (`tests/harness/clock.rs`); all else is real.

use std::time::Duration;

use edgeward_tests::Lab;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use serde_json::Value;

use crate::traffic::{await_reach, reaches, serve};

const STATUS: u16 = 8080;
const HOUR: i64 = 3600;
const SOON: Duration = Duration::from_secs(20);

fn lab() -> anyhow::Result<Lab> {
    Lab::with_policy(&CloudOptions {
        attest_interval: "2s",
        ..CloudOptions::default()
    })
}

fn is_granting(status: &Value) -> bool {
    status["standing"] == "granting"
}

fn is_held(status: &Value) -> bool {
    status["standing"]
        .as_str()
        .is_some_and(|standing| standing.contains("held_clock"))
}

#[test]
fn a_node_whose_clock_is_turned_back_is_stale_until_it_is_right_again() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let a = lab.member("a", "gateway")?;
    let mut b = lab.node("b")?;
    b.clock()?;
    let mut b = lab.enrolled(b, "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;

    b.clock()?.turn(-HOUR)?;
    let status = b.await_status("the node is told", SOON, |status| {
        status["refused"]["code"] == "clock_behind"
    })?;
    assert!(
        status["refused"]["advice"]
            .to_string()
            .contains("timedatectl"),
        "{status:#}"
    );
    eventually("the cloud calls it stale", SOON, || {
        let shown = lab.cloud.json(&["node", "show", "b"])?;
        anyhow::ensure!(shown.to_string().contains("\"stale\""), "{shown:#}");
        Ok(())
    })?;
    eventually("b is dark", SOON, || {
        anyhow::ensure!(!reaches(&a, &b, STATUS, 1)?, "still reached");
        Ok(())
    })?;

    b.clock()?.turn(0)?;
    b.await_status("trusted again", SOON, |status| status["refused"].is_null())?;
    await_reach(&a, &b, STATUS)
}

#[test]
fn a_node_that_boots_with_a_clock_behind_its_floor_grants_nothing_until_the_cloud_answers()
-> anyhow::Result<()> {
    let mut lab = lab()?;
    let mut a = lab.node("a")?;
    a.clock()?;
    let mut a = lab.enrolled(a, "gateway")?;
    a.stop()?;
    lab.cloud.stop()?;

    a.clock()?.turn(-HOUR)?;
    a.clock()?.boot()?;
    a.reboot()?;
    a.start()?;
    a.await_status("it is held", SOON, is_held)?;
    // The cloud's time releases it, and calls it stale as long as its own clock is wrong.
    lab.cloud.start()?;
    a.await_status("the cloud answered", SOON, |status| !is_held(status))?;
    a.clock()?.turn(0)?;
    a.await_status("it grants", SOON, is_granting)?;
    Ok(())
}

#[test]
fn the_tpms_clock_finds_a_clock_that_was_turned_to_after_the_last_stored_time() -> anyhow::Result<()>
{
    let mut lab = lab()?;
    let mut a = lab.node("a")?;
    a.clock()?;
    let mut a = lab.enrolled(a, "gateway")?;
    // A quote after the first heartbeat: then the state holds the cloud's time beside the TPM's.
    std::thread::sleep(Duration::from_secs(8));
    a.stop()?;
    lab.cloud.stop()?;
    // The machine runs on without its agent, then it is rebooted in order, which the TPM's clock survives.
    std::thread::sleep(Duration::from_secs(24));
    a.clock()?.turn(-10)?;
    a.clock()?.boot()?;
    a.tpm.shut_down()?;
    a.reboot()?;
    a.start()?;
    a.await_status("it is held", SOON, is_held)?;
    a.stop()?;

    // The right time is after the floor.
    a.clock()?.turn(0)?;
    a.start()?;
    a.await_status("it grants", SOON, is_granting)?;
    Ok(())
}
