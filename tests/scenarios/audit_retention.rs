//! What becomes of old events of a living cloud: archived in segments that prove themselves, erased by the key of their
//! site, and deleted by the stated policy and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aho_corasick::AhoCorasick;
use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::cloud::{CloudOptions, PORT, TRUST_DOMAIN};
use edgeward_tests::eventually::eventually;
use edgeward_tests::postgres::Postgres;
use edgeward_tests::process::{Process, output, output_within, run};
use serde_json::Value;

use crate::audit_export::{client, python};
use crate::audit_log::{auditor_key, read};

/// Events of a segment: 64 blocks of 256.
const SEGMENT: u64 = 16_384;
/// How long that many events may take to come, one by one.
const GROWTH: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(30);
/// Of a task that doubles its pauses while it fails.
const LATER: Duration = Duration::from_secs(120);
const HOUR: i64 = 3600;
const STORAGE_PORT: u16 = 9000;
/// What the stand-in for S3 knows its caller by.
const ACCESS: (&str, &str) = ("EDGEWARDKEY", "secret-of-the-plant");

/// A site with a machine, beside the one of the quickstart.
const NORTH: &str = "
schema = \"edgeward-policy/1\"
owner  = \"north\"
scope  = { site = [\"north\"] }

[group.north-machines]
match   = { site = [\"north\"] }
profile = \"north\"

[profile.north]
tier     = [\"virtual\"]
pcr_bank = \"sha256\"
pcr.0    = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"]
";
/// What only events about north's machine say: in a block, and in the tail.
const MARKERS: [&str; 2] = [
    "marker-of-north-7Qx4vLw9ZpK2mB",
    "marker-of-north-Yt81HcUe5RgJ0s",
];

/// A cloud, an auditor's key, and the key of the log.
struct Scene {
    lab: Lab,
    auditor: PathBuf,
    log_key: String,
}

#[test]
fn a_site_that_was_erased_is_gone_from_every_byte_and_everything_else_stays_proven()
-> anyhow::Result<()> {
    let mut scene = Scene::new(Lab::with_policy(&CloudOptions::default())?)?;
    let lab = &mut scene.lab;
    lab.policy_with("north.toml", NORTH)?;
    let mut a = lab.member("a", "gateway")?;
    let mut b = lab.node("b")?;
    let token = lab.cloud.token(&["--name", "b", "--label", "site=north"])?;
    b.enrol(&token)?;
    b.start()?;
    for name in ["a", "b"] {
        scene.await_own_event(name)?;
    }
    let quarantine = |scene: &Scene, reason: &str| {
        let words = ["node", "quarantine", "b", "--reason", reason];
        scene.lab.cloud.edgeward(&words).map(drop)
    };
    quarantine(&scene, MARKERS[0])?;
    // Into a block with it.
    scene.grow(600)?;
    scene.lab.cloud.edgeward(&["node", "release", "b"])?;
    a.stop()?;
    b.kill()?;
    quarantine(&scene, MARKERS[1])?;

    let before = scene.all()?;
    let first = read(&scene.lab, &scene.auditor, None)?;
    let kept = scene.keep_of_north(&before)?;
    let key = scene.key_of_site("north")?;
    let holders = holding(&scene.data(), key.as_bytes())?;
    assert_eq!(holders.len(), 1, "{holders:?}");

    scene.whoever_may_not_and_whatever_is_wrong_erases_nothing()?;
    scene
        .lab
        .cloud
        .edgeward(&["audit", "erase", "--site", "north", "--yes"])?;
    // The power goes as soon as it has answered.
    scene.lab.cloud.kill()?;
    scene.lab.cloud.start()?;
    scene.is_erased(&before, &kept)?;
    // A start and an orderly end: what SQLite had beside the database is in it.
    scene.lab.cloud.stop()?;
    scene.no_byte_is_left(&key)?;
    scene.lab.cloud.start()?;
    scene.is_erased(&before, &kept)?;
    let last = read(&scene.lab, &scene.auditor, Some(&first))?;
    assert!(last["size"].as_u64() > first["size"].as_u64());
    Ok(())
}

#[test]
fn segments_prove_themselves_and_only_what_is_old_and_archived_is_pruned() -> anyhow::Result<()> {
    edgeward_tests::require_root()?;
    let folder = tempfile::Builder::new().prefix("edgeward-pg-").tempdir()?;
    // A server that does not flush: each of many events is a transaction of its own.
    let postgres = Postgres::start(&folder.path().join("pg"))?;
    let mut lab = Lab::new(&CloudOptions {
        database: Some(postgres.url()),
        ..CloudOptions::default()
    })?;
    lab.cloud.start()?;
    let mut scene = Scene::new(lab)?;
    let archive = scene.lab.folder().join("archive");
    let to = format!("file://{}", archive.display());
    scene.archive_to(&to, "")?;
    scene.grow(SEGMENT + 500)?;
    let said = scene.archive_status("no such folder")?;
    assert_eq!(said["segments"], 0, "{said}");
    fs::create_dir(&archive)?;
    scene.await_archived()?;
    let segment = archive.join(name_of_segment(0));
    scene.a_segment_proves_itself(&segment)?;
    let kept = scene.an_event_of_a_segment_is_proven_by_it_alone(&segment)?;
    scene.storage_gets_the_same_segment()?;
    let first = read(&scene.lab, &scene.auditor, None)?;

    scene.what_is_old_and_archived_elsewhere_stays(&kept)?;
    scene.configure_archive(&to, "")?;
    scene.restart()?;
    eventually("the first segment is pruned", SOON, || {
        let told = scene.retention()?;
        anyhow::ensure!(told["minimum_index"] == SEGMENT, "{told}");
        Ok(())
    })?;
    scene.what_is_pruned_is_said_and_what_is_kept_is_proven(&kept, &segment)?;
    let last = read(&scene.lab, &scene.auditor, Some(&first))?;
    assert_eq!(last["minimum"], SEGMENT);
    // It is no matter of the moment.
    scene.lab.cloud.kill()?;
    scene.lab.cloud.start()?;
    read(&scene.lab, &scene.auditor, Some(&last))?;
    scene.what_is_pruned_is_said_and_what_is_kept_is_proven(&kept, &segment)
}

/// An event as an auditor kept it: its record, and its proof from before.
struct Kept {
    event: Value,
    record: PathBuf,
    proof: PathBuf,
}

impl Kept {
    fn index(&self) -> u64 {
        self.event["index"].as_u64().unwrap_or(u64::MAX)
    }
}

impl Scene {
    fn new(lab: Lab) -> anyhow::Result<Self> {
        Ok(Self {
            auditor: auditor_key(&lab)?,
            log_key: lab
                .cloud
                .edgeward(&["audit", "witness", "log-key"])?
                .trim()
                .to_owned(),
            lab,
        })
    }

    fn data(&self) -> PathBuf {
        self.lab.cloud.folder().join("data")
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.lab.cloud.stop()?;
        self.lab.cloud.start()
    }

    /// A request of the auditor's.
    fn ask(&self, words: &[&str], path: &str) -> anyhow::Result<(u16, Value)> {
        let mut command = self.curl(path)?;
        command.args(["--max-time", "20", "-w", "\n%{http_code}"]);
        let output = output(command.args(words))?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "{path}: {told}");
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("a status")?;
        let answer = serde_json::from_str(body).unwrap_or(Value::Null);
        Ok((status.parse()?, answer))
    }

    /// curl knows no SPIFFE IDs: whom it speaks to is checked by other tests.
    fn curl(&self, path: &str) -> anyhow::Result<std::process::Command> {
        let cloud = &self.lab.cloud;
        let key = fs::read_to_string(&self.auditor)?;
        let mut command = cloud.host().command("curl");
        command
            .args(["-sSk", "--http1.1", "-H"])
            .arg(format!("Authorization: Bearer {}", key.trim()))
            .arg(format!("https://{}:{PORT}{path}", cloud.host().ipv4()));
        Ok(command)
    }

    /// Lets the log grow by so many events: every read is one.
    fn grow(&self, count: u64) -> anyhow::Result<()> {
        let mut command = self.curl(&format!("/api/v1/audit/events/0?read=[1-{count}]"))?;
        command.args(["--parallel", "--parallel-max", "16"]);
        command.args(["-o", "/dev/null", "-w", "%{http_code}\n"]);
        let output = output_within(&mut command, GROWTH)?;
        let text = String::from_utf8(output.stdout)?;
        let good = text.lines().filter(|status| *status == "200").count();
        let told = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(u64::try_from(good)? == count, "{good} of {count}: {told}");
        Ok(())
    }

    /// Every event that is shown, in the log's order.
    fn all(&self) -> anyhow::Result<Vec<Value>> {
        let limit = "100000";
        self.lab
            .cloud
            .edgeward(&[
                "audit",
                "query",
                "-o",
                "json",
                "--from=-2d",
                "--limit",
                limit,
            ])?
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }

    fn await_own_event(&self, node: &str) -> anyhow::Result<()> {
        let own = format!("/node/{node}");
        eventually("its journal has arrived", SOON, || {
            let events = self.lab.cloud.events(&["--node", node])?;
            let found = events.iter().any(|event| recorder(event).ends_with(&own));
            anyhow::ensure!(found, "nothing of {node}'s own");
            Ok(())
        })
    }

    /// Takes an event with its record and its proof away.
    fn keep(&self, event: &Value) -> anyhow::Result<Kept> {
        let index = event["index"].as_u64().context("an index")?;
        let at = |end: &str| self.lab.folder().join(format!("{index}.{end}"));
        let (record, proof) = (at("record"), at("tlog-proof"));
        let (status, whole) = self.ask(&[], &format!("/api/v1/audit/events/{index}"))?;
        anyhow::ensure!(status == 200, "{whole}");
        fs::write(&record, whole["record"].as_str().context("a record")?)?;
        eventually("it is covered", SOON, || {
            let out = text(&proof);
            let words = ["audit", "proof", &index.to_string(), "--out", &out];
            self.lab.cloud.edgeward(&words).map(drop)
        })?;
        self.verified(&proof, &[])?;
        Ok(Kept {
            event: whole,
            record,
            proof,
        })
    }

    /// Offline, by the log's key.
    fn verify(&self, file: &Path, more: &[&str]) -> anyhow::Result<Result<Value, String>> {
        let (file, key) = (text(file), self.log_key.as_str());
        let words = ["audit", "verify", &file, "--log-key", key, "-o", "json"];
        let said = self.lab.cloud.try_edgeward(&[&words, more].concat())?;
        Ok(match said.status.success() {
            true => Ok(serde_json::from_slice(&said.stdout)?),
            false => Err(String::from_utf8_lossy(&said.stderr).into_owned()),
        })
    }

    fn verified(&self, file: &Path, more: &[&str]) -> anyhow::Result<Value> {
        self.verify(file, more)?
            .map_err(|told| anyhow::anyhow!("{}: {told}", file.display()))
    }

    fn refused(&self, file: &Path, more: &[&str]) -> anyhow::Result<String> {
        match self.verify(file, more)? {
            Err(told) => Ok(told),
            Ok(good) => anyhow::bail!("{} was taken for good: {good}", file.display()),
        }
    }

    /// The key that seals a site's events, in hex.
    fn key_of_site(&self, site: &str) -> anyhow::Result<String> {
        for entry in fs::read_dir(self.data().join("keys/sites"))? {
            let text = fs::read_to_string(entry?.path())?;
            let of_site = text.lines().any(|line| line == format!("site {site}"));
            let key = text.lines().find_map(|line| line.strip_prefix("key "));
            if let (true, Some(key)) = (of_site, key) {
                return Ok(key.to_owned());
            }
        }
        anyhow::bail!("no key of {site}")
    }

    /// Of the events of north, which must be there beside others, one of each kind.
    fn keep_of_north(&self, before: &[Value]) -> anyhow::Result<Vec<Kept>> {
        let (north, others): (Vec<&Value>, Vec<&Value>) =
            before.iter().partition(|event| is_about(event, "b"));
        for marker in MARKERS {
            let says = |event: &&&Value| event["detail"].to_string().contains(marker);
            anyhow::ensure!(north.iter().any(|event| says(&event)), "{marker}");
            anyhow::ensure!(!others.iter().any(|event| says(&event)), "{marker}");
        }
        let own = |event: &&&Value| recorder(event).ends_with("/node/b");
        anyhow::ensure!(north.iter().any(|event| own(&event)), "nothing of its own");
        let of_a = others.iter().filter(|event| is_about(event, "a")).count();
        anyhow::ensure!(of_a > 0, "nothing of the other site");
        // One of each: what the cloud wrote about the node, and what the node wrote.
        [
            north
                .iter()
                .find(|event| event["detail"].to_string().contains(MARKERS[0])),
            north
                .iter()
                .find(|event| recorder(event).ends_with("/node/b")),
        ]
        .into_iter()
        .map(|event| self.keep(event.context("an event of north")?))
        .collect()
    }

    /// Of what only the events of north said, and of their key, given in hex.
    fn no_byte_is_left(&self, key: &str) -> anyhow::Result<()> {
        let data = self.data();
        // That the search looks into the database at all: labels of nodes stay, in the fleet's own tables.
        let named = holding(&data, b"north")?;
        anyhow::ensure!(named.contains(&data.join("edgeward.db")), "{named:?}");
        let raw = hex::decode(key)?;
        for (name, bytes) in [
            (MARKERS[0], MARKERS[0].as_bytes()),
            (MARKERS[1], MARKERS[1].as_bytes()),
            ("the key in hex", key.as_bytes()),
            ("the key", &raw),
        ] {
            let found = holding(&data, bytes)?;
            anyhow::ensure!(found.is_empty(), "{name} is in {found:?}");
        }
        Ok(())
    }

    fn whoever_may_not_and_whatever_is_wrong_erases_nothing(&self) -> anyhow::Result<()> {
        let cloud = &self.lab.cloud;
        let sites = cloud.json(&["audit", "sites"])?;
        let confirmed = ["--json", "{\"confirm\": \"north\"}"];
        let path = "/api/v1/audit/sites/north/erase";
        let (status, answer) = self.ask(&confirmed, path)?;
        assert_eq!(
            (status, &answer["code"]),
            (403, &"forbidden".into()),
            "{answer}"
        );
        let key = text(&self.auditor);
        let erase = ["audit", "erase", "--site"];
        let auditor = [&["--api-key-file", &key], &erase[..], &["north", "--yes"]].concat();
        let nobody = [&erase[..], &["nowhere", "--yes"]].concat();
        let spaced = [&erase[..], &["no where", "--yes"]].concat();
        // Nobody types the name.
        let unsaid = [&erase[..], &["north"]].concat();
        for (words, wanted) in [
            (auditor, "forbidden"),
            (nobody, "nowhere"),
            (spaced, "not the name of a site"),
            (unsaid, "nothing was erased"),
        ] {
            let said = cloud.try_edgeward(&words)?;
            let told = told(&said);
            anyhow::ensure!(
                !said.status.success() && told.contains(wanted),
                "{words:?}: {told}"
            );
        }
        assert_eq!(cloud.json(&["audit", "sites"])?, sites);
        anyhow::ensure!(cloud.events(&["--type", "audit.erased"])?.is_empty());
        Ok(())
    }

    /// Of what there was before, everything of the site is gone for everybody, and nothing else is.
    fn is_erased(&self, before: &[Value], kept: &[Kept]) -> anyhow::Result<()> {
        let cloud = &self.lab.cloud;
        let after = self.all()?;
        let shown = |index: &Value| after.iter().find(|event| event["index"] == *index);
        for event in before {
            let found = shown(&event["index"]);
            match is_about(event, "b") {
                true => anyhow::ensure!(found.is_none(), "still shown: {event}"),
                false => {
                    let found = found.with_context(|| format!("gone: {event}"))?;
                    assert_eq!(found["hash"], event["hash"]);
                }
            }
        }
        for kept in kept {
            let path = format!("/api/v1/audit/events/{}", kept.index());
            let (status, answer) = self.ask(&[], &path)?;
            assert_eq!(
                (status, &answer["code"]),
                (410, &"event_erased".into()),
                "{answer}"
            );
            // What is left is its hash, which whoever kept the record can prove.
            let proof = self.lab.folder().join("erased.tlog-proof");
            let (index, out) = (kept.index().to_string(), text(&proof));
            cloud.edgeward(&["audit", "proof", &index, "--out", &out])?;
            let told = self.refused(&proof, &[])?;
            anyhow::ensure!(told.contains("does not hold its record"), "{told}");
            let record = text(&kept.record);
            let proven = self.verified(&proof, &["--record", &record])?;
            assert_eq!(proven["hash"], kept.event["hash"]);
            self.verified(&kept.proof, &[])?;
            let changed = self.lab.folder().join("changed.record");
            fs::write(
                &changed,
                salted_otherwise(&fs::read_to_string(&kept.record)?)?,
            )?;
            self.refused(&proof, &["--record", &text(&changed)])?;
        }
        let erased = cloud.events(&["--type", "audit.erased"])?;
        assert_eq!(erased.len(), 1, "{erased:?}");
        assert_eq!(erased[0]["detail"]["site"], "north");
        let sites = cloud.json(&["audit", "sites"])?;
        let sites = sites["items"]
            .as_array()
            .or(sites.as_array())
            .context("a list")?;
        let north = sites.iter().find(|site| site["site"] == "north");
        assert_eq!(north.context("north")?["erased"], 1, "{sites:?}");
        self.is_as_it_was_signed()
    }

    fn is_as_it_was_signed(&self) -> anyhow::Result<()> {
        let checked = self.lab.cloud.json(&["audit", "self-check"])?;
        anyhow::ensure!(checked["fault"].is_null(), "{checked}");
        Ok(())
    }

    /// As of the next start: the policy with this archive, in the place of another one.
    fn configure_archive(&self, to: &str, more: &str) -> anyhow::Result<()> {
        let path = self.lab.cloud.folder().join("edgeward.toml");
        let before = fs::read_to_string(&path)?;
        let rest = before.split("[audit.retention]").next().unwrap_or_default();
        let policy = format!("[audit.retention]\nkeep = \"1h\"\narchive = \"{to}\"\n{more}");
        Ok(fs::write(&path, format!("{rest}{policy}"))?)
    }

    fn archive_to(&mut self, to: &str, more: &str) -> anyhow::Result<()> {
        self.configure_archive(to, more)?;
        self.restart()
    }

    fn retention(&self) -> anyhow::Result<Value> {
        self.lab.cloud.json(&["audit", "retention"])
    }

    /// Waits until the archive fails for this, which the command says by its exit code, too.
    fn archive_status(&self, why: &str) -> anyhow::Result<Value> {
        eventually("the archive fails", LATER, || {
            let words = ["audit", "archive", "status", "-o", "json"];
            let said = self.lab.cloud.try_edgeward(&words)?;
            let told = told(&said);
            anyhow::ensure!(!said.status.success() && told.contains(why), "{told}");
            Ok(serde_json::from_slice(&said.stdout)?)
        })
    }

    fn await_archived(&self) -> anyhow::Result<()> {
        eventually("a segment is archived", LATER, || {
            let status = self.lab.cloud.json(&["audit", "archive", "status"])?;
            anyhow::ensure!(status["next_index"] == SEGMENT, "{status}");
            anyhow::ensure!(status["state"] == "writing", "{status}");
            Ok(())
        })
    }

    fn a_segment_proves_itself(&self, segment: &Path) -> anyhow::Result<()> {
        let good = self.verified(segment, &[])?;
        assert_eq!(
            (&good["first"], &good["last"]),
            (&0.into(), &(SEGMENT - 1).into())
        );
        assert_eq!(good["origin"], format!("{TRUST_DOMAIN}/audit"));
        let whole = fs::read(segment)?;
        let spoilt = self.lab.folder().join("spoilt.segment");
        for place in 1..8 {
            let mut bytes = whole.clone();
            let at = bytes.len() * place / 8;
            bytes[at] ^= 1;
            fs::write(&spoilt, bytes)?;
            self.refused(&spoilt, &[])?;
        }
        fs::write(&spoilt, &whole[..whole.len() - 1])?;
        self.refused(&spoilt, &[])?;
        // By somebody else's key, and by none.
        let key = self.log_key.replacen("/audit+", "/other+", 1);
        let file = text(segment);
        for more in [&["--log-key", key.as_str()][..], &[]] {
            let words = [&["audit", "verify", &file], more].concat();
            anyhow::ensure!(!self.lab.cloud.try_edgeward(&words)?.status.success());
        }
        Ok(())
    }

    /// Offline: its record by the keys of the sites, its proof without any.
    fn an_event_of_a_segment_is_proven_by_it_alone(&self, segment: &Path) -> anyhow::Result<Kept> {
        let index = 1000;
        let (status, event) = self.ask(&[], &format!("/api/v1/audit/events/{index}"))?;
        anyhow::ensure!(status == 200, "{event}");
        let kept = self.keep(&event)?;
        let (file, number) = (text(segment), index.to_string());
        let keys = text(&self.data().join("keys/sites"));
        let show = [
            "audit", "segment", "show", &file, "--keys", &keys, "--index",
        ];
        let shown = self.lab.cloud.edgeward(&[&show[..], &[&number]].concat())?;
        assert_eq!(shown.trim_end(), fs::read_to_string(&kept.record)?);
        self.is_proven_by(segment, &kept)?;
        Ok(kept)
    }

    fn is_proven_by(&self, segment: &Path, kept: &Kept) -> anyhow::Result<()> {
        let proof = self.lab.folder().join("archived.tlog-proof");
        let prove = ["audit", "segment", "prove", &text(segment)].map(str::to_owned);
        let prove: Vec<&str> = prove.iter().map(String::as_str).collect();
        let (record, out) = (text(&kept.record), text(&proof));
        let index = kept.index().to_string();
        let of = |index: &str| {
            let words = [&prove[..], &[index, "--out", &out]].concat();
            self.lab.cloud.edgeward(&words)
        };
        of(&index)?;
        let proven = self.verified(&proof, &["--record", &record])?;
        assert_eq!(proven["hash"], kept.event["hash"]);
        // The proof of its neighbour is none of it.
        of(&(kept.index() + 1).to_string())?;
        self.refused(&proof, &["--record", &record])?;
        anyhow::ensure!(
            of(&SEGMENT.to_string()).is_err(),
            "it is not in the segment"
        );
        Ok(())
    }

    /// S3, as botocore understands its signatures.
    fn storage_gets_the_same_segment(&mut self) -> anyhow::Result<()> {
        let folder = self.lab.folder().join("stored");
        fs::create_dir(&folder)?;
        let log = self.lab.folder().join("storage.log");
        let mut command = self.lab.cloud.host().command(python()?);
        command.arg(client("s3_storage.py")).arg(&folder);
        command.arg(STORAGE_PORT.to_string());
        let mut storage = Process::start("storage", command, &log)?;
        eventually("the storage listens", SOON, || {
            storage.check()?;
            let listening = format!("( sport = :{STORAGE_PORT} )");
            let host = self.lab.cloud.host();
            let sockets = run(host.command("ss").args(["-ltnH", &listening]))?;
            anyhow::ensure!(!sockets.trim().is_empty(), "nobody there");
            Ok(())
        })?;
        let (id, secret) = (
            self.lab.folder().join("s3-id"),
            self.lab.folder().join("s3.secret"),
        );
        fs::write(&id, ACCESS.0)?;
        fs::write(&secret, "secret-of-somebody-else")?;
        let more = format!(
            "[audit.retention.s3]\nendpoint = \"http://127.0.0.1:{STORAGE_PORT}\"\nregion = \"eu-central-1\"\n\
             key_file = \"{}\"\nsecret_file = \"{}\"\n",
            id.display(),
            secret.display()
        );
        self.archive_to("s3://audit-log/plant", &more)?;
        self.archive_status("SignatureDoesNotMatch")?;
        let object = folder.join("audit-log/plant").join(name_of_segment(0));
        anyhow::ensure!(!object.exists(), "taken under a wrong secret");
        fs::write(&secret, ACCESS.1)?;
        self.await_archived()?;
        let good = self.verified(&object, &[])?;
        assert_eq!(
            (&good["first"], &good["last"]),
            (&0.into(), &(SEGMENT - 1).into())
        );
        storage.check()
    }

    /// The smallest index that is kept, as the pruner said after its first turn in this process.
    fn minimum_after_a_turn(&self) -> anyhow::Result<String> {
        eventually("the pruner has looked", SOON, || {
            let host = self.lab.cloud.host();
            let metrics = run(host
                .command("curl")
                .args(["-sSf", "http://127.0.0.1:9465/metrics"]))?;
            let line = metrics
                .lines()
                .find(|line| line.starts_with("edgeward_audit_minimum_index"))
                .context("not yet")?;
            let (_, value) = line.rsplit_once(' ').context("a value")?;
            Ok(value.to_owned())
        })
    }

    /// By an hour and more, in an archive that is not the one of the policy.
    fn what_is_old_and_archived_elsewhere_stays(&mut self, kept: &Kept) -> anyhow::Result<()> {
        let elsewhere = format!("file://{}", self.lab.folder().join("elsewhere").display());
        self.configure_archive(&elsewhere, "")?;
        self.lab.cloud.stop()?;
        self.lab.cloud.clock()?.turn(3 * HOUR)?;
        self.lab.cloud.start()?;
        eventually("only the archive holds it", SOON, || {
            let held = self.retention()?["held_by"].to_string();
            anyhow::ensure!(held.contains("is not archived"), "{held}");
            Ok(())
        })?;
        // From its start on nothing else keeps the pruner.
        self.restart()?;
        assert_eq!(
            self.minimum_after_a_turn()?,
            "0",
            "pruned, and not archived"
        );
        let told = self.retention()?;
        assert_eq!(told["minimum_index"], 0, "{told}");
        self.whoever_may_not_prunes_nothing()?;
        let pruned = self.lab.cloud.events(&["--type", "audit.pruned"])?;
        anyhow::ensure!(pruned.is_empty(), "{pruned:?}");
        let (status, event) = self.ask(&[], &format!("/api/v1/audit/events/{}", kept.index()))?;
        assert_eq!((status, &event["hash"]), (200, &kept.event["hash"]));
        Ok(())
    }

    /// There is no call that prunes: only the policy in the cloud's configuration does.
    fn whoever_may_not_prunes_nothing(&self) -> anyhow::Result<()> {
        let before = self.retention()?;
        for words in [
            ["--json", "{\"minimum_index\": 16384}"],
            ["-X", "DELETE"],
            ["-X", "PUT"],
        ] {
            let (status, answer) = self.ask(&words, "/api/v1/audit/log/retention")?;
            anyhow::ensure!((400..500).contains(&status), "{words:?}: {status} {answer}");
        }
        let (status, answer) = self.ask(
            &["--json", "{\"confirm\": \"default\"}"],
            "/api/v1/audit/sites/default/erase",
        )?;
        assert_eq!(status, 403, "{answer}");
        let after = self.retention()?;
        assert_eq!(after["minimum_index"], before["minimum_index"]);
        Ok(())
    }

    fn what_is_pruned_is_said_and_what_is_kept_is_proven(
        &self,
        kept: &Kept,
        segment: &Path,
    ) -> anyhow::Result<()> {
        let cloud = &self.lab.cloud;
        let index = kept.index().to_string();
        for path in [&index, &format!("{index}/proof")] {
            let (status, answer) = self.ask(&[], &format!("/api/v1/audit/events/{path}"))?;
            assert_eq!(
                (status, &answer["code"]),
                (410, &"event_pruned".into()),
                "{answer}"
            );
        }
        let said = cloud.try_edgeward(&["audit", "proof", &index])?;
        anyhow::ensure!(!said.status.success(), "{}", told(&said));
        let shown = self.all()?;
        let indices: Vec<u64> = shown
            .iter()
            .filter_map(|event| event["index"].as_u64())
            .collect();
        assert_eq!(
            indices.first(),
            Some(&SEGMENT),
            "nothing below, and all from there on"
        );
        anyhow::ensure!(indices.windows(2).all(|two| two[0] + 1 == two[1]), "a hole");
        let pruned = cloud.events(&["--type", "audit.pruned"])?;
        assert_eq!(pruned.len(), 1, "{pruned:?}");
        let detail = &pruned[0]["detail"];
        assert_eq!(detail["minimum_index"], SEGMENT.to_string());
        let policy = detail["policy"].to_string();
        anyhow::ensure!(policy.contains("1 hours, archived in file://"), "{policy}");
        // What was proven is proven: by the proof from before, and by the segment.
        self.verified(&kept.proof, &[])?;
        self.verified(segment, &[])?;
        self.is_proven_by(segment, kept)?;
        let first = shown.first().context("an event that is kept")?;
        self.keep(first)?;
        self.is_as_it_was_signed()
    }
}

/// The same record with another salt: well-formed, and another entry.
fn salted_otherwise(record: &str) -> anyhow::Result<String> {
    let (head, rest) = record.split_once("\"salt\":\"").context("a salt")?;
    let first = if rest.starts_with('0') { '1' } else { '0' };
    let rest = rest.get(1..).context("a salt")?;
    Ok(format!("{head}\"salt\":\"{first}{rest}"))
}

fn recorder(event: &Value) -> &str {
    event["node"].as_str().unwrap_or_default()
}

/// Whether a node recorded it, or the cloud about that node: what its site's key seals.
fn is_about(event: &Value, node: &str) -> bool {
    let own = format!("spiffe://{TRUST_DOMAIN}/node/{node}");
    let recorder = recorder(event);
    recorder == own || (recorder.contains("/cloud/") && event["subject"] == own)
}

/// Files below a folder that hold these bytes.
fn holding(folder: &Path, bytes: &[u8]) -> anyhow::Result<Vec<PathBuf>> {
    let wanted = AhoCorasick::new([bytes])?;
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && wanted.is_match(&fs::read(entry.path())?) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn name_of_segment(first: u64) -> PathBuf {
    PathBuf::from(format!("{TRUST_DOMAIN}/audit/{first:016}.segment"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn told(said: &std::process::Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&said.stdout), text(&said.stderr))
}
