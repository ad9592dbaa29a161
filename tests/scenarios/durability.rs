//! The record under `kill -9`: agent and cloud die again and again while events flow; none is lost, none is doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
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
