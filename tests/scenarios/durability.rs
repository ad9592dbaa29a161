//! The record under `kill -9` and power cuts: agent, cloud and database die again and again while events flow; none is
//! lost, none is doubled, and every one is proven.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::postgres::Postgres;
use serde_json::Value;

use crate::traffic::{await_reach, reaches, serve};

const STATUS: u16 = 8080;
/// How often agent and cloud are killed in turn.
const ROUNDS: usize = 6;

#[test]
fn killing_agent_and_cloud_in_a_loop_loses_no_event_and_doubles_none() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;

    for round in 0..ROUNDS {
        // Denied flows, so that there is something to record on both sides.
        for port in 9000..9003 {
            let _ = reaches(&a, &b, port, 1)?;
        }
        if round % 2 == 0 {
            a.kill()?;
            a.start()?;
        } else {
            lab.cloud.kill()?;
            lab.cloud.start()?;
        }
    }
    a.await_ready()?;
    await_reach(&a, &b, STATUS)?;
    // An orderly stop flushes what is held; the cloud then has everything the agents ever promised.
    a.stop()?;
    a.start()?;
    a.await_ready()?;

    let starts = ROUNDS.div_ceil(2) + 2;
    eventually(
        "every start of a is in the log",
        Duration::from_secs(30),
        || {
            let started = lab
                .cloud
                .events(&["--node", "a", "--type", "agent.started"])?
                .len();
            anyhow::ensure!(started == starts, "{started} of {starts}");
            Ok(())
        },
    )?;
    for node in [&a, &b] {
        every_sequence_is_gapless_and_single(&lab, node)?;
    }
    let coverage = lab.cloud.edgeward(&["audit", "coverage", "-o", "json"])?;
    anyhow::ensure!(
        !coverage.contains("\"gap\""),
        "the cloud knows of a gap: {coverage}"
    );
    Ok(())
}

/// `EDGEWARD_CHAOS_DEATHS` asks for more of them, `EDGEWARD_CHAOS_SEED` for another order.
#[test]
fn agents_cloud_and_database_die_in_random_order_and_the_record_is_whole_and_proven()
-> anyhow::Result<()> {
    let asked = |name: &str, default: u64| -> anyhow::Result<u64> {
        Ok(std::env::var(name).map_or(Ok(default), |text| text.parse())?)
    };
    let deaths = asked("EDGEWARD_CHAOS_DEATHS", 8)?;
    let mut draw = asked("EDGEWARD_CHAOS_SEED", 1)?;
    let folder = tempfile::Builder::new().prefix("edgeward-pg-").tempdir()?;
    let mut postgres = Postgres::start(&folder.path().join("pg"))?;
    let mut lab = Lab::with_policy(&CloudOptions {
        database: Some(postgres.url()),
        ..CloudOptions::default()
    })?;
    let mut a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    for death in 0..deaths {
        for port in 9000..9003 {
            let _ = reaches(&a, &b, port, 1)?;
        }
        // Knuth's generator: its upper bits are the good ones.
        draw = draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The first four are one of each.
        match if death < 4 { death } else { (draw >> 33) % 4 } {
            0 => {
                a.kill()?;
                a.start()?;
            }
            1 => {
                a.reboot()?;
                a.start()?;
            }
            2 => {
                lab.cloud.kill()?;
                lab.cloud.start()?;
            }
            _ => postgres.kill_and_start()?,
        }
    }
    a.await_ready()?;
    await_reach(&a, &b, STATUS)?;
    a.stop()?;
    a.start()?;
    a.await_ready()?;
    eventually("everything has arrived", Duration::from_secs(60), || {
        for node in [&a, &b] {
            every_sequence_is_gapless_and_single(&lab, node)?;
        }
        let coverage = lab.cloud.json(&["audit", "coverage"])?;
        anyhow::ensure!(coverage["complete"] == true, "{coverage:#}");
        Ok(())
    })?;
    // Each record under the newest checkpoint, checked as it is written.
    let proven = folder.path().join("all.jsonl");
    let proven = proven.to_str().context("a path")?;
    lab.cloud
        .edgeward(&["audit", "export", "--from", "-1h", "--out", proven])?;
    let checked = lab.cloud.json(&["audit", "self-check"])?;
    anyhow::ensure!(checked["fault"] == Value::Null, "{checked}");
    Ok(())
}

/// What the node recorded, boot by boot: 0, 1, 2 … without a hole or a second one.
fn every_sequence_is_gapless_and_single(lab: &Lab, node: &Node) -> anyhow::Result<()> {
    let mut boots: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let own = format!("node/{}", node.name());
    for event in lab.cloud.events(&["--node", node.name()])? {
        let recorder = text(&event, "node")?;
        if recorder.ends_with(&own) {
            let seq = event["seq"].as_u64().context("a sequence number")?;
            boots.entry(text(&event, "boot")?).or_default().push(seq);
        }
    }
    anyhow::ensure!(!boots.is_empty(), "{own} recorded nothing");
    for (boot, mut seqs) in boots {
        seqs.sort_unstable();
        let expected: Vec<u64> = (0..seqs.len() as u64).collect();
        anyhow::ensure!(seqs == expected, "{own}, boot {boot}: {seqs:?}");
    }
    Ok(())
}

fn text(event: &Value, field: &str) -> anyhow::Result<String> {
    let value = event[field].as_str();
    value
        .map(str::to_owned)
        .with_context(|| format!("no {field} in {event}"))
}
