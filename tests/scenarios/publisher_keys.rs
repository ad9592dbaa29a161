//! A publisher's key that only one TPM can use: made by the agent's program, asked for by `edgeward`, which links no TSS.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, ensure};
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::netns::Host;
use edgeward_tests::process::output;
use edgeward_tests::swtpm::Swtpm;
use edgeward_tests::{Lab, bin_dir};
use serde_json::Value;

/// A folder on a machine with a TPM.
struct Desk<'d> {
    host: &'d Host,
    folder: &'d Path,
}

impl Desk<'_> {
    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let program = bin_dir()?.join(program);
        let program = program.to_str().context("a path that is not text")?;
        let mut command = self.host.command(program);
        command
            .args(arguments)
            .current_dir(self.folder)
            .env("EDGEWARD_AGENT_TPM__TCTI", Swtpm::tcti());
        output(&mut command)
    }

    fn good(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let done = self.run(program, arguments)?;
        let error = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{program} {arguments:?}: {error}");
        Ok(String::from_utf8(done.stdout)?.trim().to_owned())
    }
}

#[test]
fn a_publisher_signs_with_a_key_that_only_its_tpm_can_use() -> anyhow::Result<()> {
    let lab = Lab::new(&CloudOptions::default())?;
    let host = lab.cloud.host().clone();
    let folder = lab.folder().join("desk");
    std::fs::create_dir_all(folder.join("app"))?;
    std::fs::copy("/bin/true", folder.join("app/true"))?;
    std::fs::write(
        folder.join("app.toml"),
        "app = \"acme/true\"\nversion = \"1\"\nhost_libraries = true\n[entry]\npath = \"true\"\n",
    )?;
    let mut tpm = lab.maker.make(&host, &lab.folder().join("publisher-tpm"))?;
    tpm.power_on()?;
    let desk = Desk {
        host: &host,
        folder: &folder,
    };
    let edgeward = |arguments: &[&str]| desk.good("edgeward", arguments);
    let made = desk.good("edgeward-agent", &["tpm-key", "make", "acme.tpm"])?;
    ensure!(
        edgeward(&["publisher", "key", "tpm:acme.tpm"])? == made,
        "{made}"
    );
    let again = desk.run("edgeward-agent", &["tpm-key", "make", "acme.tpm"])?;
    ensure!(!again.status.success(), "a key was overwritten");
    edgeward(&["publisher", "key", "--new", "ops.key"])?;
    let online = edgeward(&[
        "publisher",
        "key",
        "--new",
        "online.key",
        "--kind",
        "ecdsa-p256",
    ])?;
    let ops = edgeward(&["publisher", "key", "ops.key"])?;
    let keys = ["--key", &ops, "--threshold", "1"];
    let init = [
        "publisher",
        "root",
        "init",
        "--repo",
        "repo",
        "--online",
        &online,
    ];
    edgeward(&[&init[..], &keys[..]].concat())?;
    edgeward(&[
        "publisher",
        "add",
        "acme",
        "--repo",
        "repo",
        "--key",
        "tpm:acme.tpm",
        "--threshold",
        "1",
    ])?;
    let sign = [
        "app",
        "sign",
        "app",
        "--manifest",
        "app.toml",
        "--repo",
        "repo",
        "--signer",
        "tpm:acme.tpm",
        "-o",
        "json",
    ];
    let standing: Value = serde_json::from_str(&edgeward(&sign)?)?;
    ensure!(standing["complete"] == true, "{standing}");
    ensure!(
        standing["authorities"][0]["signed"][0] == made.as_str(),
        "{standing}"
    );
    // The file alone is worth nothing: another machine's TPM refuses it.
    tpm.power_cut()?;
    let mut other = lab.maker.make(&host, &lab.folder().join("other-tpm"))?;
    other.power_on()?;
    let renew = [
        "app",
        "sign",
        "--renew",
        "acme",
        "--repo",
        "repo",
        "--signer",
        "tpm:acme.tpm",
    ];
    let refused = desk.run("edgeward", &renew)?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1) && error.contains("tpm"),
        "{error}"
    );
    ensure!(
        !folder.join("repo/image/metadata/2.acme.json").exists(),
        "signed without the key"
    );
    Ok(())
}
