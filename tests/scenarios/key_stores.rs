//! An issuing key in the cloud's own TPM, through tpm2-pkcs11: the cloud links no TSS.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use edgeward_tests::Lab;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::process::run;
use edgeward_tests::swtpm::Swtpm;

const MODULE: &str = "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1";
/// tpm2-tools leave their objects in the chip and count on a resource manager, which a bare swtpm has not: each tool is
/// run through a script that clears up after it. On a machine `/dev/tpmrm0` does that.
const TIDY: &str = "for tool in /usr/bin/tpm2_*; do name=$(basename $tool); \
    case $name in tpm2_ptool|tpm2_flushcontext) continue;; esac; \
    printf '#!/bin/sh\\n%s \"$@\"; code=$?; /usr/bin/tpm2_flushcontext -t >/dev/null 2>&1; exit $code\\n' $tool >$0/$name; \
    chmod +x $0/$name; done";

#[test]
fn a_cloud_issues_with_a_key_that_its_tpm_keeps() -> anyhow::Result<()> {
    let mut lab = Lab::new(&CloudOptions::default())?;
    let spare = lab.node("spare")?;
    for certificate in lab.maker.roots() {
        lab.cloud.trust_tpm_maker(&certificate)?;
    }
    drop(spare);
    let host = lab.cloud.host().clone();
    let mut tpm = lab.maker.make(&host, &lab.folder().join("cloud-tpm"))?;
    tpm.power_on()?;
    let store = lab.folder().join("tpm2-pkcs11");
    make_token(&lab, &store)?;
    let pin = lab.folder().join("pin");
    std::fs::write(&pin, "1234\n")?;
    run(Command::new("chmod").arg("600").arg(&pin))?;
    let uri = format!(
        "pkcs11:token=edgeward?module-path={MODULE}&pin-source=file:{}",
        pin.display()
    );
    lab.cloud
        .configure(&format!("[keys.issuing]\nstore = \"{uri}\""))?;
    for (name, value) in environment(&store) {
        lab.cloud.set_environment(name, &value);
    }
    lab.cloud.start()?;
    lab.cloud
        .edgeward(&["policy", "apply", edgeward_tests::lab::QUICKSTART_POLICY])?;
    let keys = lab.cloud.folder().join("data/keys");
    ensure!(!keys.join("issuing.key").exists(), "the key is in a file");
    let _a = lab.member("a", "gateway")?;
    let before = lab.cloud.json(&["ca", "status"])?;
    ensure!(
        before["authorities"][1]["key_at"]
            .as_str()
            .is_some_and(|place| place.contains("pkcs11")),
        "{before}"
    );
    lab.cloud.edgeward(&["ca", "rotate", "issuing"])?;
    let _b = lab.member("b", "machine")?;
    // The key outlives the process, in the chip.
    lab.cloud.stop()?;
    lab.cloud.start()?;
    let _c = lab.member("c", "machine")?;
    Ok(())
}

fn environment(store: &Path) -> [(&'static str, String); 4] {
    [
        ("TPM2_PKCS11_STORE", store.display().to_string()),
        ("TPM2_PKCS11_TCTI", Swtpm::tcti()),
        ("TPM2TOOLS_TCTI", Swtpm::tcti()),
        ("TSS2_LOG", "all+NONE".to_owned()),
    ]
}

fn make_token(lab: &Lab, store: &Path) -> anyhow::Result<()> {
    let tools = lab.folder().join("tools");
    for folder in [&tools, &store.to_owned()] {
        std::fs::create_dir_all(folder)?;
    }
    run(Command::new("sh").args(["-c", TIDY]).arg(&tools))?;
    let path = format!(
        "{}:{}",
        tools.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    for arguments in [
        &["init"][..],
        &[
            "addtoken",
            "--pid=1",
            "--label=edgeward",
            "--userpin=1234",
            "--sopin=12345678",
        ],
    ] {
        let mut command = lab.cloud.host().command("tpm2_ptool");
        command.args(arguments).arg("--path").arg(store);
        command.envs(environment(store)).env("PATH", &path);
        run(&mut command)?;
    }
    Ok(())
}
