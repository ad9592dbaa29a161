//! What an app's running, as the TPM's record of it proves, opens; and what its end closes.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use edgeward_tests::agent::Node;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::QUICKSTART_POLICY;

use super::{APP, Plant, SOON, assigned, await_note, collector};
use crate::traffic::{Connection, await_reach, reaches, serve};

/// So rarely is evidence asked for without a reason: whatever follows here follows from what nodes say.
const INTERVAL: &str = "10m";
/// Longest time from the operator's word to a shut door, on a machine that is busy with other tests.
const SHUT_WITHIN: Duration = Duration::from_secs(10);
const STORE: u16 = 8090;
const STREAM: u16 = 8091;
/// Only who runs the collector, in a version that is good, may store.
const RULES: &str = "[service.store]\non = \"machines\"\n\n\
    \x20 [service.store.interface.data]\n  net = \"mesh\"\n  l4  = \"tcp/8090\"\n\n\
    \x20 [service.store.interface.stream]\n  net = \"mesh\"\n  l4  = \"tcp/8091\"\n\n\
    [[rule]]\nid = \"collectors-store\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\n\
    to = [\"store/data\", \"store/stream\"]\ndo = [\"connect\"]\nruns = [\"acme/collector>=1.1\"]\n";

/// Everything of acme's may run on gateways, and nothing is assigned.
const ALLOWED: &str = "[apps.gateways]\nallow = [{ publisher = \"acme\" }]\n";

/// The quickstart's profile, which now also names the register of apps.
fn measure_apps(plant: &Plant) -> anyhow::Result<()> {
    let fleet = std::fs::read_to_string(format!("{QUICKSTART_POLICY}/fleet.toml"))?;
    let line = "pcr_bank = \"sha256\"\n";
    anyhow::ensure!(fleet.contains(line), "no bank in {fleet}");
    let fleet = fleet.replace(line, &format!("{line}apps_pcr = 14\n"));
    plant.lab.policy_with("fleet.toml", &fleet)?;
    Ok(())
}

fn await_shut(from: &Node, to: &Node, within: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    eventually("the store is shut", within, || {
        anyhow::ensure!(!reaches(from, to, STORE, 1)?, "it is open");
        Ok(())
    })?;
    println!("shut after {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn an_interface_is_open_to_who_runs_a_good_release_and_closes_with_it() -> anyhow::Result<()> {
    let mut plant = Plant::asking_every(INTERVAL)?;
    measure_apps(&plant)?;
    plant.publish(APP, "1.0", &collector("too old")?)?;
    let policy = |version| format!("{}\n{RULES}", assigned(version));
    plant.apply(&policy("latest"))?;
    let mut gateway = plant.member("a", "gateway")?;
    let machine = plant.member("b", "machine")?;
    let _store = serve(&machine, STORE)?;
    await_note(&mut gateway, "too old")?;
    assert!(!reaches(&gateway, &machine, STORE, 3)?, "1.0 opens nothing");

    plant.publish(APP, "1.1", &collector("good")?)?;
    await_note(&mut gateway, "good")?;
    await_reach(&gateway, &machine, STORE)?;
    let mut stream = Connection::open(&gateway, &machine, STREAM)?;
    stream.goes_on(SOON)?;

    // The release is revoked: no new connection, and what is open gets nothing through.
    let release = format!("{APP}@1.1");
    plant
        .lab
        .cloud
        .edgeward(&["app", "revoke", &release, "--reason", "leaks"])?;
    await_shut(&gateway, &machine, SHUT_WITHIN)?;
    stream.stands_still(SHUT_WITHIN)?;

    // Another one opens it again, and its removal shuts it.
    plant.publish(APP, "1.2", &collector("better")?)?;
    await_note(&mut gateway, "better")?;
    await_reach(&gateway, &machine, STORE)?;
    plant.apply(&format!("{ALLOWED}\n{RULES}"))?;
    await_shut(&gateway, &machine, SOON)
}

#[test]
fn who_tampers_with_the_record_of_apps_runs_nothing_that_counts() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    measure_apps(&plant)?;
    plant.publish(APP, "1.1", &collector("good")?)?;
    plant.apply(&format!("{}\n{RULES}", assigned("latest")))?;
    let mut gateway = plant.member("a", "gateway")?;
    let machine = plant.member("b", "machine")?;
    let _store = serve(&machine, STORE)?;
    await_note(&mut gateway, "good")?;
    await_reach(&gateway, &machine, STORE)?;
    // Somebody with the TPM at hand measures something that no record tells.
    gateway.tpm.extend(14, &"ab".repeat(32)).context("pcr 14")?;
    await_shut(&gateway, &machine, SOON)
}
