//! What a node booted and runs decides what it may do: logs built for the purpose, in a software TPM that was extended
//! by them. See `tests/harness/measured.rs` for what is real in this.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::tpm::HashAlg;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::QUICKSTART_POLICY;
use edgeward_tests::measured::MeasuredFile;
use serde_json::Value;

use crate::traffic::{await_reach, reaches, serve};

mod ima;
mod vectors;

const STATUS: u16 = 8080;
/// One attestation interval with its jitter, the answer, and a slow machine.
const SECONDS: Duration = Duration::from_secs(15);

#[test]
fn a_machine_is_trusted_by_its_boot_and_by_no_other() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let good = BootLogBuilder::typical(true);
    require(&lab, &pcrs(&good, &[0, 4, 7]), "secure_boot = true\n")?;
    let a = lab.member("a", "gateway")?;
    let mut b = machine(&mut lab, &good.build())?;
    let _status = serve(&b, STATUS)?;
    await_state(&lab, &b, "trusted")?;
    await_reach(&a, &b, STATUS)?;

    // The next boot loads another boot loader, with an honest log.
    let mut other = good.clone();
    for event in other.events_mut() {
        if event.measured == b"boot loader 1" {
            event.measured = b"another boot loader".to_vec();
        }
    }
    b.reboot_by(&other.build())?;
    let booted = Instant::now();
    b.start()?;
    await_state(&lab, &b, "failed")?;
    println!("failed {} ms after the start", booted.elapsed().as_millis());
    assert!(!reaches(&a, &b, STATUS, 2)?, "reached after another boot");
    explained(&lab, &b, "profile_pcr_value", "pcr 4", "BOOTX64.EFI")?;

    // And the one after is the good one again.
    b.reboot_by(&good.build())?;
    b.start()?;
    await_state(&lab, &b, "trusted")?;
    await_reach(&a, &b, STATUS)
}

#[test]
fn a_register_that_changes_while_a_node_runs_cuts_it_at_its_peers() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let good = BootLogBuilder::typical(true);
    require(&lab, &pcrs(&good, &[4, 7]), "secure_boot = true\n")?;
    let a = lab.member("a", "gateway")?;
    let b = machine(&mut lab, &good.build())?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let mut download = long_download(&a, &b)?;

    b.tpm.extend(4, &"5a".repeat(32))?;
    let extended = Instant::now();
    eventually("b is dark", SECONDS, || {
        anyhow::ensure!(!reaches(&a, &b, STATUS, 1)?, "still reached");
        Ok(())
    })?;
    println!(
        "dark {} ms after the register changed (challenges every 2 s; one request is in this)",
        extended.elapsed().as_millis()
    );
    eventually("the flow that was open is dead", SECONDS, || {
        anyhow::ensure!(download.try_wait()?.is_some(), "it goes on");
        Ok(())
    })?;
    assert!(!download.wait()?.success(), "the download came to its end");
    await_state(&lab, &b, "failed")?;
    for _ in 0..3 {
        assert!(!reaches(&a, &b, STATUS, 2)?, "reached again");
    }
    Ok(())
}

#[test]
fn a_log_that_was_edited_or_left_out_is_refused_by_its_code() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let good = BootLogBuilder::typical(true);
    require(&lab, &pcrs(&good, &[4, 7]), "secure_boot = true\n")?;
    let mut b = machine(&mut lab, &good.build())?;
    await_state(&lab, &b, "trusted")?;

    // Digest and data of one event, as if something else had been booted: the TPM was told the truth.
    let mut forged = good.clone();
    for event in forged.events_mut() {
        if event.pcr == 4 && event.measured == b"boot loader 1" {
            event.measured = b"something harmless".to_vec();
        }
    }
    std::fs::write(b.boot_log_path(), forged.build())?;
    await_state(&lab, &b, "failed")?;
    explained(&lab, &b, "boot_log_replay_mismatch", "pcr 4", "")?;

    // Only the data: the digests still match the TPM, and say nothing about it any more.
    let mut forged = good.clone();
    for event in forged.events_mut() {
        // `db` and `dbx`, in the log's UTF-16.
        let is_database = event.data.windows(4).any(|name| name == b"d\0b\0");
        if let (7, true, Some(last)) = (event.pcr, is_database, event.data.last_mut()) {
            *last ^= 1;
        }
    }
    b.reboot_by(&good.build())?;
    std::fs::write(b.boot_log_path(), forged.build())?;
    b.start()?;
    await_state(&lab, &b, "failed")?;
    explained(&lab, &b, "secure_boot", "", "")?;

    b.reboot_by(&good.build())?;
    std::fs::remove_file(b.boot_log_path())?;
    b.start()?;
    await_code(&lab, &b, "boot_log_missing")?;
    explained(&lab, &b, "boot_log_missing", "", "")?;

    std::fs::write(b.boot_log_path(), good.build())?;
    await_state(&lab, &b, "trusted").map(|_| ())
}

/// A download that would take minutes, and gives up after two seconds without a byte.
fn long_download(from: &Node, to: &Node) -> anyhow::Result<std::process::Child> {
    let size = 64 << 20;
    let folder = to.folder().join(format!("www-{STATUS}"));
    std::fs::File::create(folder.join("large"))?.set_len(size)?;
    let url = format!("http://[{}]:{STATUS}/large", crate::traffic::overlay(to)?);
    let mut command = from.host().command("curl");
    command.args([
        "-sS",
        "--limit-rate",
        "200k",
        "--speed-limit",
        "1",
        "--speed-time",
        "2",
    ]);
    let file = from.folder().join("large");
    let mut child = command.arg("-o").arg(&file).arg(url).spawn()?;
    eventually("the download has begun", SECONDS, || {
        anyhow::ensure!(child.try_wait()?.is_none(), "it has ended");
        anyhow::ensure!(std::fs::metadata(&file)?.len() > 0, "no byte yet");
        Ok(())
    })?;
    Ok(child)
}

/// A lab that challenges often.
fn lab() -> anyhow::Result<Lab> {
    Lab::with_policy(&CloudOptions {
        attest_interval: "2s",
        ..CloudOptions::default()
    })
}

/// The quickstart's policy, in which machines must have measured this. `lists` lie beside it.
fn require_with(lab: &Lab, profile: &str, lists: &[(&str, &str)]) -> anyhow::Result<()> {
    let folder = lab.folder().join("policy");
    std::fs::create_dir_all(folder.join("ima"))?;
    for entry in std::fs::read_dir(QUICKSTART_POLICY)? {
        let path = entry?.path();
        let mut text = std::fs::read_to_string(&path)?;
        if path.ends_with("fleet.toml") {
            text = of_machines(&text)?;
            text.push_str(&format!(
                "\n[profile.measured]\ntier = [\"virtual\"]\npcr_bank = \"sha256\"\nfresh = \"10m\"\noffline = \"12h\"\n{profile}"
            ));
        }
        std::fs::write(folder.join(path.file_name().unwrap_or_default()), text)?;
    }
    for (name, text) in lists {
        std::fs::write(folder.join(name), text)?;
    }
    lab.cloud
        .edgeward(&["policy", "apply", path_text(&folder)?])?;
    Ok(())
}

fn require(lab: &Lab, pcrs: &str, more: &str) -> anyhow::Result<()> {
    require_with(lab, &format!("{pcrs}{more}"), &[])
}

/// Gives the group of machines the profile `measured`.
fn of_machines(text: &str) -> anyhow::Result<String> {
    let (before, after) = text
        .split_once("[group.machines]")
        .ok_or_else(|| anyhow::anyhow!("no group of machines"))?;
    let after = after.replacen("\"simulated\"", "\"measured\"", 1);
    Ok(format!("{before}[group.machines]{after}"))
}

/// The sets of a profile: these registers as this boot leaves them.
fn pcrs(log: &BootLogBuilder, indexes: &[u8]) -> String {
    log.quoted(HashAlg::Sha256, indexes)
        .into_iter()
        .map(|(index, value)| format!("pcr.{index} = [\"sha256:{}\"]\n", hex::encode(value)))
        .collect()
}

/// Machine `b`, booted by this log and enrolled, with its agent running.
fn machine(lab: &mut Lab, log: &[u8]) -> anyhow::Result<Node> {
    let mut node = lab.node("b")?;
    node.boot_by(log)?;
    enrol(lab, &mut node)?;
    Ok(node)
}

fn enrol(lab: &Lab, node: &mut Node) -> anyhow::Result<()> {
    let token = lab.cloud.token(&[
        "--name",
        node.name(),
        "--label",
        "site=quickstart",
        "--label",
        "role=machine",
    ])?;
    node.enrol(&token)?;
    node.start()
}

/// Waits until the cloud calls the node this, and gives what `edgeward node show` says.
fn await_state(lab: &Lab, node: &Node, state: &str) -> anyhow::Result<Value> {
    await_shown(lab, node, &format!("{} is {state}", node.name()), |shown| {
        shown["state"] == state || shown["attestation"]["state"] == state
    })
}

/// Waits until this code is among what the cloud shows of the node.
fn await_code(lab: &Lab, node: &Node, code: &str) -> anyhow::Result<Value> {
    await_shown(lab, node, &format!("{code} is shown"), |shown| {
        shown.to_string().contains(code)
    })
}

fn await_shown(
    lab: &Lab,
    node: &Node,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    eventually(what, SECONDS, || {
        let shown = lab.cloud.json(&["node", "show", node.name()])?;
        anyhow::ensure!(
            holds(&shown),
            "{shown:#}\n--- {}:\n{}",
            node.name(),
            node.log_text()
        );
        Ok(shown)
    })
}

/// Both ends say why: code, register (as `pcr N`) and event.
fn explained(lab: &Lab, node: &Node, code: &str, pcr: &str, event: &str) -> anyhow::Result<()> {
    let says = |text: &str| {
        let text = text.to_lowercase();
        let words = [code, pcr, event];
        words.iter().all(|word| text.contains(&word.to_lowercase()))
    };
    // Events are named a moment after the verdict: a cut waits for no explanation.
    eventually("edgeward node show says why", SECONDS, || {
        let text = lab.cloud.edgeward(&["node", "show", node.name()])?;
        anyhow::ensure!(says(&text), "{text}");
        Ok(())
    })?;
    eventually("the node's own status says why", SECONDS, || {
        let text = edgeward_tests::process::run(&mut node.command("status"))?;
        anyhow::ensure!(says(&text), "{text}");
        Ok(())
    })
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .ok_or_else(|| anyhow::anyhow!("not a text: {}", path.display()))
}

/// The published vectors, where they are.
fn vectors_folder() -> Option<PathBuf> {
    let folder = match std::env::var_os("EDGEWARD_VECTORS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
    };
    folder.is_dir().then_some(folder)
}
