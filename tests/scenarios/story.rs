//! The main job: two machines prove themselves, policy opens one interface, quarantine closes it, the log tells it.

use std::time::{Duration, Instant};

use edgeward_tests::Lab;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::postgres::Postgres;

use crate::traffic::{await_reach, reaches, serve};

/// Open by the quickstart's policy, for gateways.
const STATUS: u16 = 8080;
/// Defined there, and open to nobody.
const ADMIN: u16 = 8081;

#[test]
fn two_nodes_meet_by_policy_and_part_by_quarantine_on_sqlite() -> anyhow::Result<()> {
    story(&CloudOptions::default())
}

#[test]
fn two_nodes_meet_by_policy_and_part_by_quarantine_on_postgresql() -> anyhow::Result<()> {
    edgeward_tests::require_root()?;
    let folder = tempfile::Builder::new().prefix("edgeward-pg-").tempdir()?;
    let postgres = Postgres::start(&folder.path().join("pg"))?;
    story(&CloudOptions {
        database: Some(postgres.url()),
        ..CloudOptions::default()
    })
}

fn story(options: &CloudOptions) -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(options)?;
    let a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    let _admin = serve(&b, ADMIN)?;
    let _on_a = serve(&a, STATUS)?;

    await_reach(&a, &b, STATUS)?;
    assert!(
        !reaches(&a, &b, ADMIN, 2)?,
        "an interface without a rule was reached"
    );
    assert!(
        !reaches(&b, &a, STATUS, 2)?,
        "the rule works in one direction only"
    );

    let shown = a.wg_show(&[])?;
    assert!(
        shown.contains("latest handshake"),
        "wg shows the tunnel: {shown}"
    );
    for secret in ["private-key", "preshared-keys"] {
        let told = a.wg_show(&[secret])?;
        assert!(told.contains("(none)"), "{secret}: {told}");
    }

    lab.cloud.edgeward(&["node", "quarantine", "b"])?;
    let ordered = Instant::now();
    eventually("b is dark", Duration::from_secs(3), || {
        anyhow::ensure!(!reaches(&a, &b, STATUS, 1)?, "still reached");
        Ok(())
    })?;
    println!(
        "dark {} ms after the order returned (one request is in this)",
        ordered.elapsed().as_millis()
    );
    // It stays dark: nothing rekeys, reconnects or renews its way back.
    for _ in 0..3 {
        assert!(!reaches(&a, &b, STATUS, 2)?, "reached again after the cut");
    }

    for kind in [
        "token.created",
        "token.used",
        "enrolment.issued",
        "policy.applied",
        "session.opened",
        "bind.opened",
        "flow.denied",
        "node.quarantined",
        "cut.effected",
    ] {
        lab.cloud.await_event(&["--type", kind])?;
    }

    lab.cloud.edgeward(&["node", "release", "b"])?;
    await_reach(&a, &b, STATUS)
}
