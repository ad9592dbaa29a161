//! A lab with a publisher: from the keys of its holders to what runs on a node.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::Context;
use edgeward_identity::PublicKey;

use crate::Lab;
use crate::agent::Node;
use crate::apps::Volume;
use crate::cloud::CloudOptions;
use crate::eventually::eventually;
use crate::process::run;
use crate::publisher::{Holders, Online, Program, Released, Repository};

/// Longest wait for what takes a download, a record and a TPM operation, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(40);
/// What is published unless a scenario says otherwise.
pub const APP: &str = "acme/collector";
/// Says over and over which release it is, where the node can read it.
const COLLECTOR: &str = "echo collector is up; while :; do read note </app/etc/note; echo \"$note\" >/state/new; /app/bin/busybox mv /state/new /state/note; /app/bin/busybox sleep 0.2; done";

/// A lab whose cloud has an image repository with the publisher `acme`, two of whose three holders sign.
#[derive(Debug)]
pub struct Plant {
    pub lab: Lab,
    pub repository: Repository,
}

impl Plant {
    pub fn new() -> anyhow::Result<Self> {
        Self::asking_every("2s")
    }

    /// The cloud asks for evidence so often, and besides when it hears that there is something new.
    pub fn asking_every(attest_interval: &'static str) -> anyhow::Result<Self> {
        let lab = Lab::with_policy(&CloudOptions {
            attest_interval,
            ..CloudOptions::default()
        })?;
        let online = Online::Cloud(online_key(&lab, &[])?);
        let folder = lab.folder().join("repository");
        let mut repository = Repository::new(&folder, Holders::new(2, 3)?, online)?;
        repository.add_publisher("acme", Holders::new(2, 3)?)?;
        let plant = Self { lab, repository };
        plant.submit("root")?;
        plant.submit("targets")?;
        Ok(plant)
    }

    /// The cloud signs snapshot and timestamp by another key from now on: it makes one, and a new root names it.
    pub fn turn_online_key(&mut self) -> anyhow::Result<()> {
        let next = online_key(&self.lab, &["--next"])?;
        self.repository.turn_online_key(next)?;
        self.submit("root")
    }

    /// Uploads the newest root or image role.
    pub fn submit(&self, role: &str) -> anyhow::Result<()> {
        let file = self.repository.newest(role)?;
        let file = file.to_str().context("a path")?;
        self.lab.cloud.edgeward(&["publisher", "submit", file])?;
        Ok(())
    }

    /// Signs a release and uploads it.
    pub fn publish(
        &mut self,
        app: &str,
        version: &str,
        program: &Program,
    ) -> anyhow::Result<Released> {
        let released = self.repository.release(app, version, program)?;
        self.upload()?;
        Ok(released)
    }

    pub fn upload(&self) -> anyhow::Result<()> {
        let output = self.try_upload()?;
        anyhow::ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    pub fn try_upload(&self) -> anyhow::Result<Output> {
        let folder = self.repository.folder().to_str().context("a path")?;
        self.lab
            .cloud
            .try_edgeward(&["app", "publish", "--repo", folder])
    }

    /// Applies the quickstart's policy with the publishers and these tables beside it.
    pub fn apply(&self, tables: &str) -> anyhow::Result<PathBuf> {
        let head = "schema = \"edgeward-policy/1\"\nowner = \"platform\"\nscope = \"any\"\n";
        let text = format!("{head}\n{}\n{tables}\n", self.repository.policy()?);
        self.lab.policy_with("apps.toml", &text)
    }

    /// Gateways run the newest collector.
    pub fn apply_collector(&self) -> anyhow::Result<()> {
        self.apply(&assigned("latest")).map(|_| ())
    }

    /// An enrolled node that can run apps.
    pub fn member(&mut self, name: &str, role: &str) -> anyhow::Result<Node> {
        self.member_on(name, role, Volume::Memory(256))
    }

    pub fn member_on(&mut self, name: &str, role: &str, volume: Volume) -> anyhow::Result<Node> {
        let mut node = self.lab.node(name)?;
        node.ready_for_apps(volume, "")?;
        self.lab.enrolled(node, role)
    }
}

fn online_key(lab: &Lab, more: &[&str]) -> anyhow::Result<PublicKey> {
    let words = [&["publisher", "online-key"], more].concat();
    let text = lab.cloud.edgeward(&words)?;
    let point = text
        .trim()
        .strip_prefix("ecdsa-p256:")
        .with_context(|| format!("no key: {text}"))?;
    Ok(PublicKey::from_point(&hex::decode(point)?)?)
}

/// `[apps.gateways]` that allows everything of acme's and assigns a version of the collector.
pub fn assigned(version: &str) -> String {
    format!(
        "[apps.gateways]\nallow = [{{ publisher = \"acme\" }}]\n\
         install = [{{ publisher = \"acme\", name = \"collector\", version = \"{version}\", state = \"running\" }}]\n"
    )
}

/// The collector, which says `note`.
pub fn collector(note: &str) -> anyhow::Result<Program> {
    let text = format!("{note}\n");
    Ok(Program::busybox(&["sh", "-c", COLLECTOR])?.with_file("etc/note", text.as_bytes()))
}

/// What the collector of a node said last.
pub fn note(node: &mut Node) -> anyhow::Result<String> {
    let state = node.ground()?.state();
    let found = run(std::process::Command::new("find")
        .arg(state)
        .args(["-name", "note"]))?;
    let file = found.lines().next().context("no note yet")?;
    Ok(std::fs::read_to_string(file)?.trim().to_owned())
}

pub fn await_note(node: &mut Node, wanted: &str) -> anyhow::Result<()> {
    eventually(&format!("the collector says {wanted:?}"), SOON, || {
        let said = note(node)?;
        anyhow::ensure!(said == wanted, "it says {said:?}");
        Ok(())
    })
    .with_context(|| {
        let ground = node.ground().map(|ground| ground.log_text());
        format!("{}\n{}", node.log_text(), ground.unwrap_or_default())
    })
}

/// Waits until no process of any app is left.
pub fn await_nothing_runs(node: &mut Node) -> anyhow::Result<()> {
    let ground = node.ground()?;
    eventually("no app runs", SOON, || {
        let left = ground.processes("")?;
        anyhow::ensure!(left.is_empty(), "{left:?} run");
        Ok(())
    })
}
