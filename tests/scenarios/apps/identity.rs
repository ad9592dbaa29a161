//! What an app is to others: itself, by what its publisher signed, for as long as its node runs it; and to nobody anything
//! that it is not.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use edgeward_tests::agent::Node;
use edgeward_tests::bin_dir;
use edgeward_tests::process::{output, run};
use edgeward_tests::publisher::Program;

use super::{APP, Plant, await_note, await_nothing_runs, told};
use crate::traffic::overlay;

const VAULT_APP: &str = "acme/vault";
const PORT: u16 = 8443;
const COLLECTOR: &str = "spiffe://plant.example/workload/line/collector";
const VAULT: &str = "spiffe://plant.example/workload/line/vault";
/// Who else could ask on the node's socket: nobody's user.
const OTHER_UID: u32 = 39_992;

const RULES: &str = r#"
[service.vault]
on = "machines"

  [service.vault.interface.data]
  net = "mesh"
  l4  = "tcp/8443"

[[rule]]
id     = "gateways-vault"
effect = "allow"
from   = ["group:gateways"]
to     = ["vault/data"]
do     = ["connect"]

[workload."line/collector"]
on    = "gateways"
match = { app = "acme/collector" }

[workload."line/vault"]
on    = "machines"
match = { app = "acme/vault" }

[apps.machines]
allow   = [{ publisher = "acme" }]
install = [{ publisher = "acme", name = "vault", version = "latest", state = "running" }]
"#;
const COLLECTS: &str = r#"
[apps.gateways]
allow   = [{ publisher = "acme" }]
install = [{ publisher = "acme", name = "collector", version = "latest", state = "running", reach = ["vault/data"] }]
"#;

/// A built example without what only debuggers read, as it would be released.
fn lean(plant: &Plant, name: &str) -> anyhow::Result<PathBuf> {
    let built = bin_dir()?.join("examples").join(name);
    let lean = plant.lab.folder().join(name);
    run(Command::new("strip").arg("-o").args([&lean, &built])).with_context(|| {
        format!(
            "{}: cargo build --examples -p edgeward-tests",
            built.display()
        )
    })?;
    Ok(lean)
}

/// Asks for an identity on the node's socket, as this user.
fn asks(node: &Node, client: &Path, uid: u32) -> anyhow::Result<std::process::Output> {
    let id = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    command.arg(client);
    command.arg(node.folder().join("run/workload.sock"));
    output(command.arg("historian"))
}

fn refused(asked: &std::process::Output) -> anyhow::Result<()> {
    let text = told(asked);
    anyhow::ensure!(!asked.status.success(), "an identity was given: {text}");
    // Not what a socket says that cannot be opened: nobody was asked then.
    let named = ["PermissionDenied", "no_identity"];
    anyhow::ensure!(named.iter().any(|word| text.contains(word)), "{text}");
    Ok(())
}

/// The user that the app of this node runs as, and its group.
fn runs_as(node: &mut Node) -> anyhow::Result<(u32, String)> {
    let ground = node.ground()?;
    let processes = ground.processes("collector")?;
    let process = processes.first().context("it does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|line| line.split_whitespace().next());
    let uid = uid.context("no user")?.parse()?;
    let group = std::fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let group = group.lines().find_map(|line| line.strip_prefix("0::"));
    Ok((uid, group.context("no group")?.to_owned()))
}

/// Moved into the app's group by root, and of its user: all that is missing is that its publisher signed it.
fn intruder(node: &mut Node, client: &Path, uid: u32) -> anyhow::Result<std::process::Output> {
    let socket = node.folder().join("run/workload.sock");
    let ground = node.ground()?;
    let folder = ground.cgroup().join("acme@collector/cgroup.procs");
    let script =
        "echo $$ >$0 && exec setpriv --reuid $1 --regid $1 --clear-groups \"$2\" \"$3\" historian";
    let mut command = ground.command(Path::new("sh"));
    command
        .args(["-c", script])
        .arg(folder)
        .arg(uid.to_string());
    output(command.arg(client).arg(socket))
}

#[test]
fn an_app_is_itself_to_another_by_its_own_certificate_and_nobody_else_is() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.apply(&format!("{RULES}{COLLECTS}"))?;
    let peer = lean(&plant, "app-peer")?;
    let client = lean(&plant, "workload-client")?;
    let peer = peer.to_str().context("a path")?;
    let mut machine = plant.member("b", "machine")?;
    let port = PORT.to_string();
    let vault = Program::dynamic(peer, &["serve", &port, COLLECTOR])?;
    plant.publish(VAULT_APP, "1.0", &vault)?;
    let mut gateway = plant.member("a", "gateway")?;
    refused(&asks(&gateway, &client, OTHER_UID)?).context("before there is an app")?;

    let address = overlay(&machine)?.to_string();
    let collector = Program::dynamic(peer, &["ask", &address, &port, VAULT])?;
    plant.publish(APP, "1.0", &collector)?;
    await_note(&mut gateway, &format!("{VAULT} sees {COLLECTOR}"))
        .with_context(|| machine.log_text())?;
    let issued = plant.lab.cloud.events(&["--type", "workload.issued"])?;
    let named = |id: &str| issued.iter().any(|event| event.to_string().contains(id));
    assert!(named(COLLECTOR) && named(VAULT), "{issued:#?}");

    // Of the same user but not launched; launched by nobody but in its group; the node itself; each other's node.
    let (uid, group) = runs_as(&mut gateway)?;
    assert!(group.ends_with("/acme@collector"), "{group}");
    refused(&asks(&gateway, &client, uid)?).context("the same user")?;
    refused(&asks(&gateway, &client, 0)?).context("root")?;
    refused(&intruder(&mut gateway, &client, uid)?).context("a stranger in its group")?;
    refused(&asks(&machine, &client, uid)?).context("another node")?;
    // Who has no certificate learns nothing from the other app, though its node may connect.
    let mut stranger = gateway.host().command("timeout");
    stranger.args(["10", "openssl", "s_client", "-connect"]);
    let stranger = output(stranger.arg(format!("[{address}]:{PORT}")))?;
    let text = told(&stranger);
    assert!(
        text.contains("CONNECTED") && !text.contains("sees"),
        "{text}"
    );
    await_note(&mut gateway, &format!("{VAULT} sees {COLLECTOR}"))?;

    // Ended: nobody of that user is it any more.
    plant.apply(RULES)?;
    await_nothing_runs(&mut gateway)?;
    refused(&asks(&gateway, &client, uid)?).context("after its end")?;
    anyhow::ensure!(
        !machine.ground()?.processes("vault")?.is_empty(),
        "the other ended"
    );
    Ok(())
}
