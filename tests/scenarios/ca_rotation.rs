//! The life of the CA: issuing authority and root are turned over, tainted and retired under traffic, with nodes that
//! are there, one that was away, and one that missed it all.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::{Cloud, CloudOptions};
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::Process;
use serde_json::Value;

use crate::traffic::{await_reach, overlay, serve};

const STATUS: u16 = 8080;
/// How long the fleet may take to renew, come back or be turned over.
const TURN: Duration = Duration::from_secs(60);

/// New connections, one after the other, for as long as it lives.
struct Traffic {
    _process: Process,
    log: PathBuf,
}

impl Traffic {
    fn begin(from: &Node, to: &Node) -> anyhow::Result<Self> {
        let log = from.folder().join("probes");
        let script = format!(
            "while :; do if curl -sSf --max-time 3 -o /dev/null http://[{}]:{STATUS}/; \
             then echo ok; else echo lost $(date -u +%T); fi >>{} 2>&1; sleep 0.1; done",
            overlay(to)?,
            log.display()
        );
        let mut command = from.host().command("bash");
        command.args(["-c", &script]);
        Ok(Self {
            _process: Process::start("probes", command, &from.folder().join("probes.log"))?,
            log,
        })
    }

    /// Fails if a single one was lost; returns how many there were.
    fn none_lost(&self, when: &str) -> anyhow::Result<usize> {
        let text = std::fs::read_to_string(&self.log)?;
        let lost: Vec<&str> = text.lines().filter(|line| *line != "ok").collect();
        ensure!(lost.is_empty(), "lost until {when}: {lost:?}");
        let count = text.lines().count();
        ensure!(count > 0, "no traffic at all until {when}");
        Ok(count)
    }
}

fn status(cloud: &Cloud) -> anyhow::Result<Value> {
    cloud.json(&["ca", "status"])
}

fn authorities(cloud: &Cloud, kind: &str, state: &str) -> anyhow::Result<Vec<Value>> {
    Ok(status(cloud)?["authorities"]
        .as_array()
        .context("authorities")?
        .iter()
        .filter(|one| one["kind"] == kind && one["state"] == state)
        .cloned()
        .collect())
}

fn key_in(cloud: &Cloud, kind: &str, state: &str) -> anyhow::Result<String> {
    match authorities(cloud, kind, state)?.as_slice() {
        [one] => Ok(one["key"].as_str().context("key")?.to_owned()),
        other => anyhow::bail!("not one {kind} authority is {state}: {other:?}"),
    }
}

fn await_state(cloud: &Cloud, key: &str, state: &str) -> anyhow::Result<()> {
    eventually(&format!("{key} is {state}"), TURN, || {
        let all = status(cloud)?;
        let found = all["authorities"]
            .as_array()
            .context("authorities")?
            .iter()
            .find(|one| one["key"] == key)
            .context("no such authority")?["state"]
            .clone();
        ensure!(found == state, "it is {found}: {all}");
        Ok(())
    })
}

fn await_relying(cloud: &Cloud, key: &str, names: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("{names:?} rely on {key}"), TURN, || {
        let all = status(cloud)?;
        let found = all["authorities"]
            .as_array()
            .context("authorities")?
            .iter()
            .find(|one| one["key"] == key)
            .context("no such authority")?["relying"]
            .clone();
        ensure!(found == serde_json::json!(names), "{found}");
        Ok(())
    })
}

/// The first admin's certificate hangs on an authority too: it is renewed like everybody's.
fn renew_admin(cloud: &Cloud) -> anyhow::Result<()> {
    let folder = cloud.folder().join("data/admin").display().to_string();
    let renew = ["operator", "add", "admin", "--role", "admin", "--renew"];
    cloud.edgeward(&[&renew[..], &["--out", &folder]].concat())?;
    Ok(())
}

fn await_connected(cloud: &Cloud, node: &Node) -> anyhow::Result<()> {
    let name = node.name();
    eventually(
        &format!("{name} has a session and is trusted"),
        TURN,
        || {
            let view = cloud.json(&["node", "show", name])?;
            ensure!(
                view["connected"] == true && view["state"] == "trusted",
                "{view}\n--- {name}:\n{}",
                crate::traffic::tail(&node.log_text())
            );
            Ok(())
        },
    )
}

#[test]
fn authorities_are_turned_over_tainted_and_retired_without_an_outage() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let mut c = lab.member("c", "machine")?;
    let _page = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let traffic = Traffic::begin(&a, &b)?;
    c.stop()?;

    let old = issuing(&lab.cloud, &traffic)?;
    c.start()?;
    await_connected(&lab.cloud, &c)?;
    await_state(&lab.cloud, &old, "retired")?;
    traffic.none_lost("the node that was away is back")?;

    root(&mut lab, &traffic, &mut c)?;
    missed(&lab, &mut c)?;
    every_certificate_is_in_the_log(&lab.cloud)?;
    let probes = traffic.none_lost("the end")?;
    ensure!(probes > 50, "too little traffic to say anything: {probes}");
    await_reach(&a, &b, STATUS)?;
    for kind in ["prepared", "published", "activated", "tainted", "retired"] {
        let events = lab
            .cloud
            .events(&["--type", &format!("authority.{kind}")])?;
        ensure!(events.len() >= 2, "{kind}: {events:?}");
    }
    Ok(())
}

/// The issuing authority: `c` is away, and keeps the old one from being retired until it is back.
fn issuing(cloud: &Cloud, traffic: &Traffic) -> anyhow::Result<String> {
    let old = key_in(cloud, "issuing", "active")?;
    let refused = cloud.try_edgeward(&["ca", "retire", &old, "--force"])?;
    ensure!(
        !refused.status.success(),
        "the active authority was retired"
    );
    cloud.edgeward(&["ca", "rotate", "issuing"])?;
    ensure!(key_in(cloud, "issuing", "old")? == old, "it is not old");
    ensure!(
        key_in(cloud, "issuing", "active")? != old,
        "it did not turn"
    );
    traffic.none_lost("the issuing authority turned over")?;

    renew_admin(cloud)?;
    cloud.edgeward(&["ca", "taint", &old[..12]])?;
    await_relying(cloud, &old, &["c"])?;
    let refused = cloud.try_edgeward(&["ca", "retire", &old])?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && text.contains(" c"),
        "{text}"
    );
    traffic.none_lost("every node that is there has renewed")?;
    ensure!(
        key_in(cloud, "issuing", "tainted")? == old,
        "it is not tainted"
    );
    Ok(old)
}

/// The root: `c` is away, and knows only the old one when it comes back; a token of before still enrols.
fn root(lab: &mut Lab, traffic: &Traffic, c: &mut Node) -> anyhow::Result<()> {
    let labels = ["--label", "site=quickstart", "--label", "role=machine"];
    let early = lab.cloud.token(&[&["--name", "d"], &labels[..]].concat())?;
    let old = key_in(&lab.cloud, "root", "active")?;
    let old_issuing = key_in(&lab.cloud, "issuing", "active")?;
    c.stop()?;
    // The root key is kept elsewhere: said, with the place where it belongs.
    let (here, away) = (
        lab.cloud.folder().join("data/keys/root.key"),
        lab.folder().join("root.key"),
    );
    std::fs::rename(&here, &away)?;
    let refused = lab.cloud.try_edgeward(&["ca", "rotate", "root"])?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && text.contains("root.key"),
        "{text}"
    );
    std::fs::rename(&away, &here)?;
    lab.cloud.edgeward(&["ca", "rotate", "root"])?;
    std::fs::rename(&here, &away)?;
    // All three nodes are asked for, and one is away.
    eventually("two of three hold the new root", TURN, || {
        let view = status(&lab.cloud)?;
        ensure!(
            view["held_by"] == 2
                && view["nodes"] == 3
                && view["missing"] == serde_json::json!(["c"]),
            "{view}"
        );
        Ok(())
    })?;
    ensure!(
        key_in(&lab.cloud, "root", "active")? == old,
        "it did not wait"
    );
    traffic.none_lost("the new root is published")?;
    lab.cloud.stop()?;
    lab.cloud.start()?;
    lab.cloud
        .edgeward(&["ca", "rotate", "root", "--activate-at", "60"])?;
    await_state(&lab.cloud, &old, "old")?;
    traffic.none_lost("the new root signs")?;

    let mut d = lab.node("d")?;
    d.enrol(&early)?;
    d.start()?;
    d.await_ready()?;
    await_connected(&lab.cloud, &d)?;
    renew_admin(&lab.cloud)?;
    lab.cloud.edgeward(&["ca", "taint", &old])?;
    await_relying(&lab.cloud, &old_issuing, &["c"])?;
    traffic.none_lost("every node is under the new root")?;
    c.start()?;
    await_connected(&lab.cloud, c)?;
    // The new root signs the old one out by itself, once nobody relies on it.
    await_state(&lab.cloud, &old, "retired")?;
    eventually("everybody forgot the old root", TURN, || {
        let view = status(&lab.cloud)?;
        ensure!(view["held_by"] == 4 && view["nodes"] == 4, "{view}");
        Ok(())
    })?;
    let late = lab.cloud.token(&[&["--name", "e"], &labels[..]].concat())?;
    let e = lab.node("e")?;
    e.enrol(&late)
}

/// A root comes and the one before goes while `c` is away: its certificate is refused, and its EK brings it back.
fn missed(lab: &Lab, c: &mut Node) -> anyhow::Result<()> {
    let cloud = &lab.cloud;
    let old = key_in(cloud, "root", "active")?;
    c.stop()?;
    cloud.edgeward(&["ca", "rotate", "root", "--now"])?;
    ensure!(key_in(cloud, "root", "old")? == old, "it did not turn");
    let refused = cloud.try_edgeward(&["ca", "retire", &old, "--force"])?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && text.contains("your own certificate"),
        "an operator cut itself off: {text}"
    );
    renew_admin(cloud)?;
    cloud.edgeward(&["ca", "taint", &old])?;
    let issuing = authorities(cloud, "issuing", "tainted")?;
    let [issuing] = issuing.as_slice() else {
        anyhow::bail!("not one is tainted: {issuing:?}");
    };
    let issuing = issuing["key"].as_str().context("key")?;
    // Those that went, or enrolled and were never seen, count too.
    await_relying(cloud, issuing, &["c", "d", "e"])?;
    cloud.edgeward(&["ca", "retire", &old, "--force"])?;
    ensure!(
        key_in(cloud, "root", "active")? != old,
        "the old root stays"
    );
    c.start()?;
    await_connected(cloud, c)
}

/// Who got which certificate, from whom, until when: every way of issuing one says so, and each serial is found.
fn every_certificate_is_in_the_log(cloud: &Cloud) -> anyhow::Result<()> {
    let mut serials = std::collections::BTreeSet::new();
    for kind in [
        "enrolment.issued",
        "svid.renewed",
        "svid.issued",
        "operator.added",
        "node.recovered",
    ] {
        let events: Vec<Value> = cloud
            .events(&["--type", kind])?
            .into_iter()
            // Nodes journal their renewals too, in fewer words.
            .filter(|event| {
                event["node"]
                    .as_str()
                    .is_some_and(|by| by.contains("/cloud/"))
            })
            .collect();
        ensure!(!events.is_empty(), "no {kind}");
        for event in &events {
            let detail = &event["detail"];
            for field in ["serial", "key", "issuer", "not_after"] {
                ensure!(detail[field].is_string(), "{kind} lacks {field}: {event}");
            }
            ensure!(event["subject"].is_string(), "{kind} says not who: {event}");
            let serial = detail["serial"].as_str().context("serial")?;
            ensure!(serials.insert(serial.to_owned()), "twice: {serial}");
        }
        let last = events.last().context("none")?;
        let serial = last["detail"]["serial"].as_str().context("serial")?;
        let found = cloud.events(&["--serial", serial])?;
        ensure!(found.contains(last), "{serial} is not found: {found:?}");
    }
    Ok(())
}
