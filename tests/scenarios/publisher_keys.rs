//! Publishers' keys that stay in hardware: only one TPM can use them, or a PKCS#11 token keeps them. The agent's program
//! talks to the TPM, `edgeward` to the token; it links no TSS.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, ensure};
use edgeward_apps::Digest;
use edgeward_tests::apps::Volume;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::netns::Host;
use edgeward_tests::plant::{APP, assigned, await_note, collector};
use edgeward_tests::process::output;
use edgeward_tests::publisher::Program;
use edgeward_tests::swtpm::Swtpm;
use edgeward_tests::{Lab, bin_dir};
use serde_json::Value;

const HSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TOKEN_CONFIG: &str = "softhsm2.conf";

/// A publisher's folder on the cloud's machine, with the operator's context of that cloud.
struct Desk {
    host: Host,
    folder: PathBuf,
    context: PathBuf,
}

impl Desk {
    fn new(lab: &Lab) -> anyhow::Result<Self> {
        let folder = lab.folder().join("desk");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            host: lab.cloud.host().clone(),
            folder,
            context: lab.cloud.folder().join("data/admin"),
        })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let program = bin_dir()?.join(program);
        let program = program.to_str().context("a path that is not text")?;
        let mut command = self.host.command(program);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("EDGEWARD_AGENT_TPM__TCTI", Swtpm::tcti())
            .env("SOFTHSM2_CONF", self.folder.join(TOKEN_CONFIG));
        output(&mut command)
    }

    fn good(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let done = self.run(program, arguments)?;
        let error = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{program} {arguments:?}: {error}");
        Ok(String::from_utf8(done.stdout)?.trim().to_owned())
    }

    /// The operator's commands, in words that have no spaces.
    fn edgeward(&self, line: &str) -> anyhow::Result<String> {
        self.good("edgeward", &line.split(' ').collect::<Vec<_>>())
    }

    /// As [`Desk::edgeward`], to the cloud.
    fn online(&self, line: &str) -> anyhow::Result<String> {
        self.edgeward(&format!("--context {} {line}", self.context.display()))
    }

    /// Refused, with exit code 1 and these words.
    fn refused(&self, line: &str, words: &[&str]) -> anyhow::Result<()> {
        let done = self.run("edgeward", &line.split(' ').collect::<Vec<_>>())?;
        let error = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.code() == Some(1), "{line}: {error}");
        ensure!(
            words.iter().all(|word| error.contains(word)),
            "{line}: {error}"
        );
        Ok(())
    }

    /// Content and `app.toml` of the collector.
    fn app(&self, program: &Program) -> anyhow::Result<()> {
        program.write_to(&self.folder.join("app"))?;
        let text = format!(
            "app = \"{APP}\"\nversion = \"1.0\"\n[entry]\npath = \"{}\"\nargs = {:?}\n",
            program.entry, program.args
        );
        Ok(std::fs::write(self.folder.join("app.toml"), text)?)
    }

    /// A token with one key: how it is asked for, and its public half.
    fn token(&self) -> anyhow::Result<(String, String)> {
        let tokens = self.folder.join("tokens");
        std::fs::create_dir_all(&tokens)?;
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(self.folder.join(TOKEN_CONFIG), config)?;
        let made = self.edgeward("publisher key --new import.pem --kind ecdsa-p256")?;
        for line in [
            "--init-token --free --label hsm --so-pin 12345678 --pin 1234",
            "--import import.pem --token hsm --label acme-2 --id a2 --pin 1234",
        ] {
            let mut command = self.host.command("softhsm2-util");
            command
                .args(line.split(' '))
                .current_dir(&self.folder)
                .env("SOFTHSM2_CONF", self.folder.join(TOKEN_CONFIG));
            edgeward_tests::process::run(&mut command)?;
        }
        std::fs::remove_file(self.folder.join("import.pem"))?;
        let uri = self.with_pin("1234")?;
        let kept = self.edgeward(&format!("publisher key {uri}"))?;
        ensure!(kept == made, "the token has {kept}, not {made}");
        Ok((uri, kept))
    }

    fn with_pin(&self, pin: &str) -> anyhow::Result<String> {
        let file = self.folder.join(format!("pin-{pin}"));
        std::fs::write(&file, format!("{pin}\n"))?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        Ok(format!(
            "pkcs11:token=hsm;object=acme-2?module-path={HSM}&pin-source=file:{}",
            file.display()
        ))
    }
}

#[test]
fn a_publisher_signs_with_a_key_that_only_its_tpm_can_use() -> anyhow::Result<()> {
    let lab = Lab::new(&CloudOptions::default())?;
    let desk = Desk::new(&lab)?;
    desk.app(&collector("nobody runs it")?)?;
    let mut tpm = lab
        .maker
        .make(&desk.host, &lab.folder().join("publisher-tpm"))?;
    tpm.power_on()?;
    let made = desk.good("edgeward-agent", &["tpm-key", "make", "acme.tpm"])?;
    ensure!(
        desk.edgeward("publisher key tpm:acme.tpm")? == made,
        "{made}"
    );
    let again = desk.run("edgeward-agent", &["tpm-key", "make", "acme.tpm"])?;
    ensure!(!again.status.success(), "a key was overwritten");
    desk.edgeward("publisher key --new ops.key")?;
    let online = desk.edgeward("publisher key --new online.key --kind ecdsa-p256")?;
    let ops = desk.edgeward("publisher key ops.key")?;
    desk.edgeward(&format!(
        "publisher root init --repo repo --online {online} --key {ops} --threshold 1"
    ))?;
    desk.edgeward("publisher add acme --repo repo --key tpm:acme.tpm --threshold 1")?;
    let standing = desk
        .edgeward("app sign app --manifest app.toml --repo repo --signer tpm:acme.tpm -o json")?;
    let standing: Value = serde_json::from_str(&standing)?;
    ensure!(standing["complete"] == true, "{standing}");
    ensure!(
        standing["authorities"][0]["signed"][0] == made.as_str(),
        "{standing}"
    );
    // The file alone is worth nothing: another machine's TPM refuses it.
    tpm.power_cut()?;
    let mut other = lab
        .maker
        .make(&desk.host, &lab.folder().join("other-tpm"))?;
    other.power_on()?;
    desk.refused(
        "app sign --renew acme --repo repo --signer tpm:acme.tpm",
        &["tpm"],
    )?;
    ensure!(
        !desk.folder.join("repo/image/metadata/2.acme.json").exists(),
        "signed without the key"
    );
    Ok(())
}

#[test]
fn a_release_that_a_token_and_a_tpm_signed_runs_on_a_node_and_neither_alone_is_enough()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions {
        attest_interval: "2s",
        ..CloudOptions::default()
    })?;
    let desk = Desk::new(&lab)?;
    desk.app(&collector("from hardware")?)?;
    let mut tpm = lab
        .maker
        .make(&desk.host, &lab.folder().join("publisher-tpm"))?;
    tpm.power_on()?;
    let in_tpm = desk.good("edgeward-agent", &["tpm-key", "make", "acme.tpm"])?;
    let (token, in_token) = desk.token()?;
    ceremony(&desk, [&in_token, &in_tpm])?;

    let sign = "app sign app --manifest app.toml --repo repo --signer";
    let wrong = desk.with_pin("4321")?;
    desk.refused(&format!("{sign} {wrong}"), &["token"])?;
    desk.edgeward(&format!("{sign} {token}"))?;
    let publish = format!(
        "--context {} app publish --repo repo",
        desk.context.display()
    );
    desk.refused(&publish, &["signatures are missing", in_tpm.as_str()])?;
    desk.edgeward(&format!(
        "app sign --add {APP}@1.0 --repo repo --signer tpm:acme.tpm"
    ))?;
    // Neither the token nor the TPM is needed to carry it.
    tpm.power_cut()?;
    std::fs::remove_dir_all(desk.folder.join("tokens"))?;
    desk.edgeward(&publish)?;

    let root = std::fs::read(desk.folder.join("repo/image/metadata/1.root.json"))?;
    let root = Digest::of(&root);
    let head = "schema = \"edgeward-policy/1\"\nowner = \"platform\"\nscope = \"any\"";
    lab.policy_with(
        "apps.toml",
        &format!(
            "{head}\n[apps_root]\nsha256 = \"{root}\"\n[publisher.acme]\nkeys = [\"{in_token}\", \"{in_tpm}\"]\nthreshold = 2\n{}",
            assigned("latest")
        ),
    )?;
    let mut node = lab.node("a")?;
    node.ready_for_apps(Volume::Memory(256), "")?;
    let mut node = lab.enrolled(node, "gateway")?;
    await_note(&mut node, "from hardware")
}

/// One operator's key signs a root and an image role that give acme these keys, both of which must sign.
fn ceremony(desk: &Desk, keys: [&str; 2]) -> anyhow::Result<()> {
    let ops = desk.edgeward("publisher key --new ops.key")?;
    let online = desk.online("publisher online-key")?;
    desk.edgeward(&format!(
        "publisher root init --repo repo --online {online} --key {ops} --threshold 1"
    ))?;
    let [one, other] = keys;
    desk.edgeward(&format!(
        "publisher add acme --repo repo --key {one} --key {other} --threshold 2"
    ))?;
    let files = ["1.root.json", "1.targets.json"].map(|name| {
        Path::new("repo/image/metadata")
            .join(name)
            .display()
            .to_string()
    });
    for file in &files {
        desk.edgeward(&format!("publisher sign {file} --signer ops.key"))?;
    }
    desk.online(&format!("publisher submit {}", files.join(" ")))?;
    Ok(())
}
