//! A whole installation on one machine: a cloud and nodes, each on its own host.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

use crate::agent::Node;
use crate::cloud::{Cloud, CloudOptions};
use crate::nat::{Nat, Site};
use crate::netns::{Host, Network};
use crate::require_root;
use crate::secrets::{self, Leak};
use crate::swtpm::TpmMaker;

/// Everything a scenario stands on. Processes end before their namespaces go.
#[derive(Debug)]
pub struct Lab {
    pub cloud: Cloud,
    pub maker: TpmMaker,
    pub network: Network,
    folder: TempDir,
    hosts: u8,
    /// A scenario that puts a secret where none belongs.
    may_leak: bool,
}

impl Lab {
    /// A lab whose cloud is not started yet.
    pub fn new(options: &CloudOptions) -> anyhow::Result<Self> {
        require_root()?;
        let folder = tempfile::Builder::new().prefix("edgeward-lab-").tempdir()?;
        open_to_everybody(folder.path())?;
        let mut network = Network::new()?;
        let maker = TpmMaker::new(folder.path())?;
        let cloud = Cloud::new(
            &network.host("cloud", 1)?,
            &folder.path().join("cloud"),
            options,
        )?;
        Ok(Self {
            cloud,
            maker,
            network,
            folder,
            hosts: 10,
            may_leak: false,
        })
    }

    /// A lab whose cloud runs, trusts its nodes' TPMs and has the quickstart's policy.
    pub fn with_policy(options: &CloudOptions) -> anyhow::Result<Self> {
        let mut lab = Self::new(options)?;
        let spare = lab.node_off("spare")?;
        drop(spare);
        for certificate in lab.maker.roots() {
            lab.cloud.trust_tpm_maker(&certificate)?;
        }
        lab.cloud.start()?;
        lab.cloud
            .edgeward(&["policy", "apply", QUICKSTART_POLICY])?;
        Ok(lab)
    }

    /// A machine with its TPM on, not enrolled.
    pub fn node(&mut self, name: &str) -> anyhow::Result<Node> {
        let mut node = self.node_off(name)?;
        node.tpm.power_on()?;
        Ok(node)
    }

    /// A machine that has enrolled, with the labels of the quickstart's policy, and whose agent runs.
    pub fn member(&mut self, name: &str, role: &str) -> anyhow::Result<Node> {
        let node = self.node(name)?;
        self.enrolled(node, role)
    }

    /// As [`Lab::member`], for a machine that is there.
    pub fn enrolled(&self, mut node: Node, role: &str) -> anyhow::Result<Node> {
        let label = format!("role={role}");
        let token = self.cloud.token(&[
            "--name",
            node.name(),
            "--label",
            "site=quickstart",
            "--label",
            &label,
        ])?;
        node.enrol(&token)?;
        node.start()?;
        node.await_ready()?;
        Ok(node)
    }

    /// Another machine with a copy of a node's TPM and of its disk, the TPM on.
    pub fn copy_of(&mut self, node: &Node, name: &str) -> anyhow::Result<Node> {
        let host = self.host(name)?;
        let folder = self.folder.path().join(name);
        let tpm = node.tpm.copy_to(&host, &folder.join("tpm"))?;
        let mut copy = Node::new(name, &host, &folder, tpm)?;
        copy_folder(&node.state(), &copy.state())?;
        copy.tpm.power_on()?;
        Ok(copy)
    }

    /// Takes a node's TPM out and puts a new one of the same maker in, switched on.
    pub fn replace_tpm(&self, node: &mut Node) -> anyhow::Result<()> {
        node.tpm.power_cut()?;
        let folder = self
            .folder
            .path()
            .join(format!("{}-other-tpm", node.name()));
        node.tpm = self.maker.make(node.host(), &folder)?;
        node.tpm.power_on()
    }

    /// A host that is no node.
    pub fn host(&mut self, name: &str) -> anyhow::Result<Host> {
        let number = self.number()?;
        self.network.host(name, number)
    }

    /// A site behind a router of its own.
    pub fn site(&mut self, name: &str, nat: Nat) -> anyhow::Result<Site> {
        let number = self.number()?;
        self.network.site(name, number, nat)
    }

    /// As [`Lab::node`], inside of a site.
    pub fn node_at(&mut self, site: &mut Site, name: &str) -> anyhow::Result<Node> {
        let host = self.network.host_at(site, name)?;
        let mut node = self.node_on(&host, name)?;
        node.tpm.power_on()?;
        Ok(node)
    }

    /// As [`Lab::member`], inside of a site.
    pub fn member_at(&mut self, site: &mut Site, name: &str, role: &str) -> anyhow::Result<Node> {
        let node = self.node_at(site, name)?;
        self.enrolled(node, role)
    }

    /// As [`Lab::member`], with lines at the beginning of its configuration.
    pub fn member_with(&mut self, name: &str, role: &str, lines: &str) -> anyhow::Result<Node> {
        let node = self.node(name)?;
        node.configure(lines)?;
        self.enrolled(node, role)
    }

    /// Applies the quickstart's policy with this file beside its own, or in the place of an earlier one; the folder.
    pub fn policy_with(&self, file: &str, text: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder().join("policy");
        if !folder.exists() {
            copy_folder(Path::new(QUICKSTART_POLICY), &folder)?;
        }
        std::fs::write(folder.join(file), text)?;
        let named = folder.to_str().context("a path")?;
        self.cloud.edgeward(&["policy", "apply", named])?;
        Ok(folder)
    }

    /// A machine on a host that is there, its TPM off.
    pub fn node_on(&mut self, host: &Host, name: &str) -> anyhow::Result<Node> {
        let folder = self.folder.path().join(name);
        let tpm = self.maker.make(host, &folder.join("tpm"))?;
        Node::new(name, host, &folder, tpm)
    }

    /// The folder of the lab: goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Secrets in what was written until now, and in the cloud's whole log.
    pub fn leaks(&mut self) -> anyhow::Result<Vec<Leak>> {
        let dumps = self.cloud.dumps()?;
        secrets::look(self.folder.path(), &dumps)
    }

    /// The lab's end will not fail for what leaks: the scenario does it itself.
    pub fn may_leak(&mut self) {
        self.may_leak = true;
    }

    fn node_off(&mut self, name: &str) -> anyhow::Result<Node> {
        let host = self.host(name)?;
        self.node_on(&host, name)
    }

    /// The last octet of the next host's address.
    pub fn number(&mut self) -> anyhow::Result<u8> {
        self.hosts = self.hosts.checked_add(1).context("too many hosts")?;
        Ok(self.hosts)
    }
}

impl Drop for Lab {
    /// Fails the scenario if a secret is in a log or a record, or if that cannot be said.
    fn drop(&mut self) {
        let leaks = match self.may_leak || std::thread::panicking() {
            true => Ok(Vec::new()),
            false => self.leaks(),
        };
        secrets::forget(self.folder.path());
        match leaks {
            Ok(leaks) if leaks.is_empty() => {}
            Ok(leaks) => {
                let lines: Vec<String> = leaks.iter().map(Leak::to_string).collect();
                panic!("secrets were written:\n{}", lines.join("\n"));
            }
            Err(error) => panic!("what was written could not be looked through: {error:#}"),
        }
    }
}

/// The policy that the quickstart applies.
pub const QUICKSTART_POLICY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/policies/quickstart");

/// Copies the files of a folder, which has no folders in it but the journal's.
pub fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(|_| ())?,
        }
    }
    Ok(())
}

fn open_to_everybody(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}
