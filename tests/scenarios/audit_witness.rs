//! Two clouds that witness each other's audit log.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::merkle::leaf_hash;
use edgeward_audit::note::NoteSigner;
use edgeward_audit::witness::Submission;
use edgeward_identity::Secret;
use edgeward_tests::Lab;
use edgeward_tests::cloud::{Cloud, CloudOptions, PORT, TRUST_DOMAIN};
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::output;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

/// Where Debian's package python3-cryptography is.
const PYTHON: &str = "/usr/bin/python3";
const READER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/scenarios/audit_log/cosigned.py"
);
const OTHER: &str = "other.example";
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest pause of whoever asks a witness in vain, and some.
const LONG: Duration = Duration::from_secs(120);

/// Two clouds, and what each is known by.
struct Two {
    lab: Lab,
    other: Cloud,
    log: String,
    witness: String,
}

#[test]
fn clouds_that_witness_each_other_notice_a_log_that_was_put_back() -> anyhow::Result<()> {
    let mut two = Two::new()?;
    let size = two.await_cosigned()?;
    eventually("both logs are cosigned", PATIENCE, || {
        let asked = asked(&two.other)?;
        anyhow::ensure!(asked["state"] == "cosigning", "{asked}");
        Ok(())
    })?;
    two.a_reader_demands_the_witness(size)?;
    two.somebody_elses_code_finds_the_cosignatures()?;
    // The witness is away: the log goes on, and is cosigned when it is back.
    two.other.stop()?;
    two.write(5)?;
    eventually("the witness is missed", PATIENCE, || {
        let asked = asked(&two.lab.cloud)?;
        anyhow::ensure!(asked["state"] == "failing", "{asked}");
        anyhow::ensure!(asked["behind"].as_u64() >= Some(5), "{asked}");
        Ok(())
    })?;
    two.other.start()?;
    let later = two.await_cosigned()?;
    anyhow::ensure!(later >= size + 5, "{later} after {size}");
    two.the_log_is_signed_twice()?;
    two.a_database_is_put_back()
}

impl Two {
    fn new() -> anyhow::Result<Self> {
        let mut lab = Lab::new(&CloudOptions::default())?;
        let host = lab.host("other")?;
        let folder = lab.folder().join("other");
        let mut other = Cloud::new(&host, &folder, &CloudOptions::default())?;
        let file = folder.join("edgeward.toml");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace(TRUST_DOMAIN, OTHER))?;
        // The first start makes the log's keys, the second the witness's.
        let mut keys = Vec::new();
        for cloud in [&mut lab.cloud, &mut other] {
            cloud.start()?;
            keys.push(word(cloud, "log-key")?);
            cloud.stop()?;
        }
        let (log, of_other) = (keys.remove(0), keys.remove(0));
        lab.cloud
            .configure(&format!("[[witness.log]]\nkey = {of_other:?}"))?;
        other.configure(&format!("[[witness.log]]\nkey = {log:?}"))?;
        for cloud in [&mut lab.cloud, &mut other] {
            cloud.start()?;
            keys.push(word(cloud, "key")?);
        }
        let (own, witness) = (keys.remove(0), keys.remove(0));
        ask(&lab.cloud, &other, &witness)?;
        ask(&other, &lab.cloud, &own)?;
        for cloud in [&mut lab.cloud, &mut other] {
            cloud.stop()?;
            cloud.start()?;
        }
        Ok(Self {
            lab,
            other,
            log,
            witness,
        })
    }

    /// Waits until the witness has cosigned all that there was when this was called.
    fn await_cosigned(&self) -> anyhow::Result<u64> {
        let before = asked(&self.lab.cloud)?;
        let least = before["size"].as_u64().unwrap_or(0) + before["behind"].as_u64().unwrap_or(0);
        eventually("the log is cosigned", LONG, || {
            let asked = asked(&self.lab.cloud)?;
            let size = asked["size"].as_u64().unwrap_or(0);
            anyhow::ensure!(asked["state"] == "cosigning" && size >= least, "{asked}");
            Ok(size)
        })
    }

    fn write(&self, events: usize) -> anyhow::Result<()> {
        for _ in 0..events {
            self.lab
                .cloud
                .edgeward(&["token", "create", "--ttl", "1h"])?;
        }
        Ok(())
    }

    fn a_reader_demands_the_witness(&self, size: u64) -> anyhow::Result<()> {
        let cloud = &self.lab.cloud;
        let file = |name: &str| cloud.folder().join(name);
        let (policy, proof, bare) = (
            file("policy"),
            file("1.tlog-proof"),
            file("bare.tlog-proof"),
        );
        let lines = format!(
            "log {}\nwitness other {}\nquorum other\n",
            self.log, self.witness
        );
        fs::write(&policy, lines)?;
        let path = |path: &Path| path.display().to_string();
        cloud.edgeward(&["audit", "proof", "1", "--out", &path(&proof)])?;
        let verify = |file: &Path| {
            cloud.try_edgeward(&[
                "audit",
                "verify",
                &path(file),
                "--policy",
                &path(&policy),
                "-o",
                "json",
            ])
        };
        let said = verify(&proof)?;
        anyhow::ensure!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        let said: Value = serde_json::from_slice(&said.stdout)?;
        assert_eq!(said["witnesses"][0]["name"], format!("{OTHER}/witness"));
        assert!(said["size"].as_u64() >= Some(1) && size >= 1, "{said}");
        // Without the witness's line the proof is one of the log's word alone.
        let text = fs::read_to_string(&proof)?;
        let without = text.lines().filter(|line| !line.contains("/witness "));
        let without: String = without.map(|line| format!("{line}\n")).collect();
        assert_ne!(without, text);
        fs::write(&bare, without)?;
        let said = verify(&bare)?;
        let complaint = String::from_utf8_lossy(&said.stderr);
        anyhow::ensure!(
            !said.status.success() && complaint.contains("policy_quorum"),
            "{complaint}"
        );
        // An export carries the cosignatures, too.
        let export = file("export.jsonl");
        cloud.edgeward(&["audit", "export", "--from=-1h", "--out", &path(&export)])?;
        let said = verify(&export)?;
        anyhow::ensure!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        Ok(())
    }

    fn somebody_elses_code_finds_the_cosignatures(&self) -> anyhow::Result<()> {
        let key = self.lab.cloud.folder().join("auditor.key");
        let made = self
            .lab
            .cloud
            .edgeward(&["apikey", "create", "auditor", "--role", "auditor"])?;
        fs::write(&key, made.trim())?;
        let key = key.display().to_string();
        let path = "/api/v1/audit/log/checkpoint?cosigned=true";
        let served = self.read(&self.lab.cloud, path, &key)?;
        // The witness serves it to everybody.
        let host = self.lab.cloud.host();
        let name = format!("{TRUST_DOMAIN}/audit");
        let script = "import hashlib,sys;print(hashlib.sha256(sys.argv[1].encode()).hexdigest())";
        let said = output(host.command(PYTHON).args(["-c", script, &name]))?;
        let hash = String::from_utf8(said.stdout)?;
        let path = format!("/witness/v0/{}/checkpoint", hash.trim());
        let witnessed = self.read(&self.other, &path, "-")?;
        assert!(witnessed["size"].as_u64() >= served["size"].as_u64());
        Ok(())
    }

    fn read(&self, cloud: &Cloud, path: &str, key: &str) -> anyhow::Result<Value> {
        let host = self.lab.cloud.host();
        let mut command = host.command(PYTHON);
        command
            .args([READER, &cloud.host().ipv4().to_string(), &PORT.to_string()])
            .arg(cloud.folder().join("data/keys/root.crt"))
            .args([path, key, &self.log, &self.witness]);
        let output = output(&mut command)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{complaint}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Whoever holds the log's key signs another tree of the size that was cosigned.
    fn the_log_is_signed_twice(&mut self) -> anyhow::Result<()> {
        self.await_cosigned()?;
        // Nothing comes from the log itself meanwhile: the witness stays where it is.
        self.lab.cloud.stop()?;
        let known = self.witnessed()?;
        assert!(known["fork"].is_null(), "{known}");
        let key = self.lab.cloud.folder().join("data/keys/checkpoint.key");
        let key = PrivatePkcs8KeyDer::from_pem_file(key)?;
        let origin = format!("{TRUST_DOMAIN}/audit");
        let signer = NoteSigner::new(&origin, &Secret::new(key.secret_pkcs8_der().to_vec()))?;
        let size = known["size"].as_u64().context("a size")?;
        let forged = Checkpoint {
            origin,
            size,
            root: leaf_hash(b"what never happened"),
        };
        let submission = Submission {
            old: size,
            proof: Vec::new(),
            note: forged.sign(&signer)?,
        };
        let refused = self.submit(&submission.to_string())?;
        assert_eq!(refused["code"], "witness_forked", "{refused}");
        let event = self.other.await_event(&["--type", "witness.refused"])?;
        assert_eq!(event["code"], "witness_forked", "{event}");
        assert_eq!(event["subject"], format!("log/{TRUST_DOMAIN}/audit"));
        let detail = &event["detail"];
        assert_eq!(detail["size"], detail["known_size"], "{event}");
        assert_ne!(detail["root"], detail["known_root"], "{event}");
        // Both notes are kept: together they prove it. What was cosigned stays what it was.
        let after = self.witnessed()?;
        assert_eq!(
            (&after["note"], &after["size"]),
            (&known["note"], &known["size"])
        );
        assert_eq!(after["fork"], submission.note.to_string());
        eventually("it is an alert", PATIENCE, || {
            let alerts = self.other.json(&["audit", "alerts", "list"])?;
            let forked = alerts.to_string().contains("witnessed-log-forked");
            anyhow::ensure!(forked, "{alerts:#}");
            Ok(())
        })?;
        // The log itself goes on, and is cosigned: it is the tree that was before.
        self.lab.cloud.start()?;
        self.write(3)?;
        let later = self.await_cosigned()?;
        anyhow::ensure!(later > size, "{later} after {size}");
        Ok(())
    }

    /// What the witness knows of the log.
    fn witnessed(&self) -> anyhow::Result<Value> {
        let status = self.other.json(&["audit", "witness", "status"])?;
        let log = status["logs"].get(0).cloned();
        log.with_context(|| format!("no log is witnessed: {status}"))
    }

    /// As anybody may, without any key of the witness's.
    fn submit(&self, submission: &str) -> anyhow::Result<Value> {
        let file = self.lab.folder().join("submission");
        fs::write(&file, submission)?;
        let url = format!(
            "https://{}:{PORT}/witness/v0/add-checkpoint",
            self.other.host().ipv4()
        );
        // curl knows no SPIFFE IDs: whom it speaks to is checked by other tests.
        let mut command = self.lab.cloud.host().command("curl");
        command.args(["-sSk", "--max-time", "20", "--data-binary"]);
        command.arg(format!("@{}", file.display())).arg(url);
        let said = output(&mut command)?;
        anyhow::ensure!(said.status.success(), "{said:?}");
        serde_json::from_slice(&said.stdout).context("no document")
    }

    /// The log is signed a second time from an earlier state, and nothing on its own disk tells.
    fn a_database_is_put_back(&mut self) -> anyhow::Result<()> {
        let cloud = &mut self.lab.cloud;
        let data = cloud.folder().join("data");
        let backup = cloud.folder().join("backup");
        cloud.stop()?;
        fs::create_dir(&backup)?;
        copy_database(&data, &backup)?;
        cloud.start()?;
        self.write(10)?;
        self.await_cosigned()?;
        let cloud = &mut self.lab.cloud;
        cloud.stop()?;
        copy_database(&backup, &data)?;
        fs::remove_file(data.join("log-checkpoint"))?;
        cloud.start()?;
        let disputed = cloud.await_event(&["--type", "witness.disputed"])?;
        // It may have grown beyond what was cosigned by the time it asks.
        let code = disputed["code"].as_str().unwrap_or_default();
        let known = ["witness_ahead", "witness_inconsistent"];
        assert!(known.contains(&code), "{disputed}");
        assert_eq!(disputed["subject"], format!("witness/{OTHER}/witness"));
        // It grows beyond what was cosigned, and is another log than that.
        self.write(25)?;
        eventually("the witness refuses the other history", LONG, || {
            let refused = self.other.events(&["--type", "witness.refused"])?;
            let inconsistent = |event: &&Value| event["code"] == "witness_inconsistent";
            let refused = refused.iter().find(inconsistent).context("not yet")?;
            assert_eq!(refused["subject"], format!("log/{TRUST_DOMAIN}/audit"));
            let asked = asked(&self.lab.cloud)?;
            anyhow::ensure!(asked["state"] == "disputing", "{asked}");
            Ok(())
        })?;
        Ok(())
    }
}

/// With what SQLite has beside it.
fn copy_database(from: &Path, to: &Path) -> anyhow::Result<()> {
    for name in ["edgeward.db", "edgeward.db-wal", "edgeward.db-shm"] {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

fn word(cloud: &Cloud, command: &str) -> anyhow::Result<String> {
    Ok(cloud
        .edgeward(&["audit", "witness", command])?
        .trim()
        .to_owned())
}

fn asked(cloud: &Cloud) -> anyhow::Result<Value> {
    let status = cloud.json(&["audit", "witness", "status"])?;
    let asked = status["asked"].get(0).cloned();
    asked.with_context(|| format!("nobody is asked: {status}"))
}

fn ask(cloud: &Cloud, witness: &Cloud, key: &str) -> anyhow::Result<()> {
    let bundle = witness.folder().join("data/admin/bundle.json");
    let url = format!("https://{}:{PORT}/witness/v0", witness.host().ipv4());
    cloud.configure(&format!(
        "[[witness.ask]]\nurl = {url:?}\nkey = {key:?}\nbundle = {:?}",
        bundle.display().to_string()
    ))
}
