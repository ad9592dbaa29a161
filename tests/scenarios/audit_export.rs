//! The audit log with receivers that others wrote: a collector by OTLP's published messages, OCSF's published schema.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, run};
use edgeward_tests::{Lab, bin_dir};
use serde_json::Value;

const COLLECTOR_PORT: u16 = 4318;

#[test]
fn receivers_written_elsewhere_get_every_event_though_the_cloud_is_killed() -> anyhow::Result<()> {
    let mut lab = Lab::new(&CloudOptions::default())?;
    let folder = lab.folder().to_owned();
    let (collected, lines) = (folder.join("collected"), folder.join("ocsf.jsonl"));
    lab.cloud.configure(&format!(
        "[[audit.exports]]\nname = \"collector\"\nformat = \"otlp\"\nto = \"http://127.0.0.1:{COLLECTOR_PORT}\"\n\
         from = \"start\"\nbatch = 4\n\
         [[audit.exports]]\nname = \"lines\"\nformat = \"ocsf\"\nto = \"file://{}\"\nfrom = \"start\"\n",
        lines.display()
    ))?;
    lab.cloud.start()?;
    // The collector comes late: the log does not wait for it.
    for number in 0..4 {
        lab.cloud
            .edgeward(&["token", "create", "--label", &format!("round={number}")])?;
    }
    let mut command = lab.cloud.host().command(python()?);
    command
        .arg(client("otlp_collector.py"))
        .arg(COLLECTOR_PORT.to_string())
        .arg(&collected);
    let mut collector = Process::start("collector", command, &folder.join("collector.log"))?;
    for round in 0..3 {
        for number in 0..3 {
            let label = format!("round={round}{number}");
            lab.cloud
                .edgeward(&["token", "create", "--label", &label])?;
        }
        lab.cloud.kill()?;
        lab.cloud.start()?;
    }
    collector.check()?;
    let created = ["--type", "token.created"];
    let expected: BTreeMap<u64, Value> = lab
        .cloud
        .events(&created)?
        .into_iter()
        .map(|event| Ok((event["index"].as_u64().context("an index")?, event)))
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(expected.len() == 13, "{} tokens", expected.len());

    eventually(
        "every token is with the collector",
        Duration::from_secs(60),
        || {
            let found = records(&collected)?;
            for (index, event) in &expected {
                let record = found.get(index).with_context(|| format!("event {index}"))?;
                anyhow::ensure!(record["name"] == "edgeward.token.created", "{record}");
                anyhow::ensure!(
                    record["attributes"]["edgeward.hash"] == event["hash"],
                    "{record}"
                );
                anyhow::ensure!(
                    record["attributes"]["edgeward.actor"] == event["actor"],
                    "{record}"
                );
                anyhow::ensure!(record["resource"]["service.name"] == "edgeward", "{record}");
                anyhow::ensure!(record["severity"] == 9, "{record}");
            }
            Ok(())
        },
    )?;
    eventually(
        "every token is in the file",
        Duration::from_secs(30),
        || {
            let text = std::fs::read_to_string(&lines)?;
            let mut seen = BTreeSet::new();
            for line in text.lines() {
                let event: Value = serde_json::from_str(line)?;
                let index = event["metadata"]["sequence"].as_u64().context("an index")?;
                seen.insert(index);
            }
            for index in expected.keys() {
                anyhow::ensure!(seen.contains(index), "event {index} is missing");
            }
            Ok(())
        },
    )?;
    let said = run(std::process::Command::new(python()?)
        .arg(client("ocsf_check.py"))
        .arg(&lines))?;
    println!("{}", said.trim());

    // What the collector refuses is put aside and told.
    let tokens = lab.cloud.json(&["token", "list"])?;
    let id = tokens[0]["id"].as_str().context("a token")?;
    lab.cloud.edgeward(&["token", "revoke", id])?;
    lab.cloud.await_event(&["--type", "export.refused"])?;
    let refused = lab.cloud.json(&["audit", "exports", "collector"])?;
    assert_eq!(refused[0]["reason"], "not wanted here");
    eventually("both are sending", Duration::from_secs(30), || {
        let exports = lab.cloud.json(&["audit", "exports"])?;
        for export in exports.as_array().context("a list")? {
            anyhow::ensure!(export["state"] == "sending", "{export}");
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn every_kind_of_event_is_valid_by_the_published_schema_of_ocsf() -> anyhow::Result<()> {
    let forms = bin_dir()?.join("examples/forms");
    let lines = run(&mut std::process::Command::new(forms))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lines");
    std::fs::write(&file, lines)?;
    let said = run(std::process::Command::new(python()?)
        .arg(client("ocsf_check.py"))
        .arg(&file))?;
    println!("{}", said.trim());
    anyhow::ensure!(
        said.contains("of classes [0, 2004, 3001, 3002, 3004, 4001, 6002, 6003]"),
        "{said}"
    );
    Ok(())
}

/// What the collector wrote, by the event's index in the log.
fn records(file: &std::path::Path) -> anyhow::Result<BTreeMap<u64, Value>> {
    std::fs::read_to_string(file)?
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line)?;
            let index = record["attributes"]["edgeward.index"]
                .as_u64()
                .context("an index")?;
            Ok((index, record))
        })
        .collect()
}

/// The interpreter of the environment that `tests/run` makes.
pub fn python() -> anyhow::Result<PathBuf> {
    let target = bin_dir()?;
    let target = target.parent().context("a target folder")?;
    let tool = target.join("tools/audit/bin/python");
    anyhow::ensure!(tool.exists(), "{}: made by tests/run", tool.display());
    Ok(tool)
}

pub fn client(name: &str) -> String {
    format!("{}/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}
