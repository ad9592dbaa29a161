//! Staged policies between real agents: a wrong one is stopped or taken back, a cloud that dies goes on where it was.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_ca::rollout::{Part, Percent};
use edgeward_policy::{CompiledPolicy, SourceFile};
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use serde_json::Value;

use crate::traffic::{await_reach, reaches, serve};

const STATUS: u16 = 8080;
const ADMIN: u16 = 8081;
/// No policy names it.
const NOWHERE: u16 = 9999;
/// Nodes report denials every ten seconds; more than three reports must come.
const NOTICED: Duration = Duration::from_secs(150);

const PARTIES: &str = include_str!("../../deploy/policies/quickstart/fleet.toml");

/// A policy of two interfaces, in a folder of its own, whose first stage holds `first` alone.
fn policy(lab: &Lab, name: &str, open: &[&str], first: &str) -> anyhow::Result<PathBuf> {
    let rules: String = open
        .iter()
        .map(|to| {
            format!(
                "[[rule]]\nid = \"gateways-{to}\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\nto = [\"line/{to}\"]\ndo = [\"connect\"]\n"
            )
        })
        .collect();
    for salt in 0..1000 {
        let line = format!(
            "# {salt}\nschema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = {{ site = [\"quickstart\"], role = [\"machine\"] }}\n\
             [service.line]\non = \"machines\"\n\
             [service.line.interface.status]\nnet = \"mesh\"\nl4 = \"tcp/{STATUS}\"\n\
             [service.line.interface.admin]\nnet = \"mesh\"\nl4 = \"tcp/{ADMIN}\"\n{rules}"
        );
        let files = [
            SourceFile::new("line.toml", line.clone()),
            SourceFile::new("fleet.toml", PARTIES),
        ];
        let compiled = CompiledPolicy::compile(&files, 1)
            .map_err(|report| anyhow::anyhow!("{:?}", report.diagnostics))?;
        let one = Percent::new(1).context("a share")?;
        let part = Part::new(compiled.hash(), one, ["a", "b"]);
        if part.holds(first) && !(part.holds("a") && part.holds("b")) {
            let folder = lab.cloud.folder().join(name);
            std::fs::create_dir_all(&folder)?;
            for file in files {
                std::fs::write(folder.join(&file.path), &file.text)?;
            }
            return Ok(folder);
        }
    }
    anyhow::bail!("no policy whose first stage holds {first}")
}

struct Fleet {
    lab: Lab,
    a: Node,
    b: Node,
    _served: [edgeward_tests::process::Process; 2],
}

/// Two nodes; the gateway reaches the status of the machine by policy 1 of [`policy`], which is the cloud's second.
fn fleet() -> anyhow::Result<Fleet> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let served = [serve(&b, STATUS)?, serve(&b, ADMIN)?];
    let base = policy(&lab, "base", &["status"], "a")?;
    apply(&lab, &base, &[])?;
    await_reach(&a, &b, STATUS)?;
    Ok(Fleet {
        lab,
        a,
        b,
        _served: served,
    })
}

fn apply(lab: &Lab, folder: &std::path::Path, more: &[&str]) -> anyhow::Result<String> {
    let folder = folder.to_str().context("a path of plain letters")?;
    lab.cloud
        .edgeward(&[&["policy", "apply", folder], more].concat())
}

fn stage(lab: &Lab) -> anyhow::Result<Value> {
    lab.cloud.json(&["policy", "stage", "status"])
}

fn newest(lab: &Lab) -> anyhow::Result<Value> {
    let list = lab.cloud.json(&["policy", "history"])?;
    let items = list.as_array().or_else(|| list["items"].as_array());
    items
        .and_then(|items| items.first())
        .cloned()
        .with_context(|| format!("no policies: {list}"))
}

/// Tries to reach a port again and again until the cloud has recorded an event.
fn knock_until(fleet: &Fleet, port: u16, filters: &[&str]) -> anyhow::Result<Value> {
    let begun = Instant::now();
    loop {
        reaches(&fleet.a, &fleet.b, port, 1)?;
        if let Some(event) = fleet.lab.cloud.events(filters)?.pop() {
            println!("{filters:?} after {} s", begun.elapsed().as_secs());
            return Ok(event);
        }
        anyhow::ensure!(
            begun.elapsed() < NOTICED,
            "not noticed: {}\n{:?}",
            stage(&fleet.lab)?,
            fleet.lab.cloud.events(&["--type", "flow.denied"])?.len()
        );
    }
}

#[test]
fn a_wrong_policy_is_stopped_on_its_first_node_outlives_the_clouds_death_and_is_aborted()
-> anyhow::Result<()> {
    let mut fleet = fleet()?;
    // Meant was the status.
    let wrong = policy(&fleet.lab, "wrong", &["admin"], "b")?;
    apply(&fleet.lab, &wrong, &["--stage", "1,100", "--hold", "10m"])?;
    let began = stage(&fleet.lab)?;
    assert_eq!(began["nodes"], serde_json::json!(["b"]), "{began}");
    assert_eq!(began["change"], "mixed");
    assert_eq!(began["returns_by_itself"], false);
    eventually("b has the candidate", Duration::from_secs(10), || {
        anyhow::ensure!(!reaches(&fleet.a, &fleet.b, STATUS, 1)?, "still reached");
        Ok(())
    })?;

    let event = knock_until(&fleet, STATUS, &["--type", "policy.paused"])?;
    assert_eq!(event["code"], "denials_rise", "{event}");
    let before = stage(&fleet.lab)?;
    assert_eq!(before["phase"], "paused", "{before}");

    // Somebody pulls the plug: nothing moves by that.
    fleet.lab.cloud.kill()?;
    fleet.lab.cloud.start()?;
    let after = stage(&fleet.lab)?;
    for what in ["number", "base", "phase", "percent", "nodes"] {
        assert_eq!(after[what], before[what], "{what}");
    }
    assert!(!reaches(&fleet.a, &fleet.b, STATUS, 2)?);
    let refused = fleet.lab.cloud.try_edgeward(&["policy", "rollback"])?;
    assert!(
        !refused.status.success(),
        "nothing is applied beside a stage"
    );

    // What was recorded tells what the candidate would have done.
    let folder = wrong.to_str().context("a path of plain letters")?;
    let simulated = fleet
        .lab
        .cloud
        .json(&["policy", "simulate", folder, "--since", "1h"])?;
    let closes = simulated["changed"].as_array().context("a list")?;
    assert!(
        closes
            .iter()
            .any(|changed| changed["to"] == "line/status"
                && changed["outcome"]["closes"].is_object()),
        "{simulated}"
    );

    fleet.lab.cloud.edgeward(&["policy", "stage", "abort"])?;
    let back = newest(&fleet.lab)?;
    assert_eq!(
        (&back["number"], &back["returned_to"]),
        (&4.into(), &2.into())
    );
    await_reach(&fleet.a, &fleet.b, STATUS)
}

#[test]
fn a_policy_that_closes_nothing_is_taken_back_by_itself_under_a_higher_number() -> anyhow::Result<()>
{
    let fleet = fleet()?;
    let wider = policy(&fleet.lab, "wider", &["status", "admin"], "a")?;
    apply(&fleet.lab, &wider, &["--stage", "1,100", "--hold", "10m"])?;
    let began = stage(&fleet.lab)?;
    assert_eq!(began["nodes"], serde_json::json!(["a"]), "{began}");
    assert_eq!(began["change"], "wider");
    assert_eq!(began["returns_by_itself"], true);

    let event = knock_until(&fleet, NOWHERE, &["--type", "policy.returned"])?;
    assert_eq!(event["code"], "denials_rise", "{event}");
    let back = newest(&fleet.lab)?;
    assert_eq!(
        (&back["number"], &back["returned_to"]),
        (&4.into(), &2.into())
    );
    assert_eq!(back["applied_by"], "cloud");
    assert!(
        !fleet
            .lab
            .cloud
            .try_edgeward(&["policy", "stage", "status"])?
            .status
            .success()
    );
    await_reach(&fleet.a, &fleet.b, STATUS)
}

#[test]
fn a_good_policy_comes_into_force_by_stages_although_the_cloud_dies_on_the_way_and_is_rolled_back()
-> anyhow::Result<()> {
    let mut fleet = fleet()?;
    let wider = policy(&fleet.lab, "wider", &["status", "admin"], "b")?;
    apply(&fleet.lab, &wider, &["--stage", "1,100", "--hold", "20s"])?;
    fleet.lab.cloud.kill()?;
    fleet.lab.cloud.start()?;
    assert_eq!(stage(&fleet.lab)?["percent"], 1);
    eventually("all stages are done", Duration::from_secs(120), || {
        let newest = newest(&fleet.lab)?;
        anyhow::ensure!(newest["stage"] == "done", "{newest}");
        Ok(())
    })?;
    await_reach(&fleet.a, &fleet.b, ADMIN)?;
    let staged = fleet.lab.cloud.events(&["--type", "policy.staged"])?;
    assert_eq!(staged.len(), 2, "one event for each stage: {staged:?}");

    fleet.lab.cloud.edgeward(&["policy", "rollback"])?;
    let back = newest(&fleet.lab)?;
    assert_eq!(
        (&back["number"], &back["returned_to"]),
        (&4.into(), &2.into())
    );
    eventually(
        "the rollback closes what was opened",
        Duration::from_secs(10),
        || {
            anyhow::ensure!(!reaches(&fleet.a, &fleet.b, ADMIN, 1)?, "still reached");
            Ok(())
        },
    )?;
    await_reach(&fleet.a, &fleet.b, STATUS)
}
