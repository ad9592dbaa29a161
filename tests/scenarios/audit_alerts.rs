//! Alerts of a living cloud: said to receivers that others wrote, rsyslog over TLS and a webhook, through their deaths; what is
//! silenced; and that only what a node proved of itself cuts it off.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::{Cloud, CloudOptions};
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, run};
use serde_json::Value;

const SYSLOG_PORT: u16 = 6514;
const HOOK_PORT: u16 = 8095;
/// From an event to a receiver that is there: stored, covered, looked at, said.
const SOON: Duration = Duration::from_secs(30);
/// Of a receiver that comes back: its pauses have grown meanwhile.
const LATER: Duration = Duration::from_secs(90);
/// 24 bytes in base64.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Quarantines nobody as it is shipped, since a planned update fails the same way.
const MISMATCH: &str = "pcr-mismatch";
const DEFAULTS: &str = include_str!("../../deploy/alerts/defaults.toml");
const RULES: &str = "\
[alert.token-brute-force]
severity = \"minor\"
summary = \"tokens are tried from one address\"
threshold = { type = [\"token.refused\"], recorded_by = \"cloud\", count = 3 }
by = [\"actor\"]
within = \"10m\"
repeat = \"1h\"

[alert.key-made]
severity = \"minor\"
summary = \"somebody made an API key\"
threshold = { type = [\"apikey.created\"], recorded_by = \"cloud\" }
by = [\"subject\"]
within = \"10m\"
repeat = \"1h\"

[alert.node-gone]
severity = \"minor\"
summary = \"a session ended\"
threshold = { type = [\"session.closed\"], recorded_by = \"cloud\" }
by = [\"subject\"]
within = \"10m\"
repeat = \"1h\"
";

/// A cloud that tells two receivers.
struct Desk {
    // Before their namespaces.
    syslog: Option<Process>,
    hook: Option<Process>,
    lab: Lab,
    folder: PathBuf,
}

impl Desk {
    fn new(more: &str) -> anyhow::Result<Self> {
        let mut lab = Lab::with_policy(&CloudOptions::default())?;
        let folder = lab.folder().join("receivers");
        let rules = lab.folder().join("rules");
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&rules)?;
        fs::write(rules.join("own.toml"), RULES)?;
        fs::write(rules.join("mismatch.toml"), mismatch_that_quarantines()?)?;
        fs::write(folder.join("chat.secret"), SECRET)?;
        certificates(&folder)?;
        lab.cloud.configure(&format!(
            "[alerts]\nrules = \"{}\"\n{more}\n\
             [[alerts.sinks]]\nname = \"siem\"\nto = \"tls://127.0.0.1:{SYSLOG_PORT}\"\nca = \"{at}/ca.pem\"\n\
             [[alerts.sinks]]\nname = \"chat\"\nto = \"http://127.0.0.1:{HOOK_PORT}/hook\"\nsecret_file = \"{at}/chat.secret\"\n",
            rules.display(),
            at = folder.display(),
        ))?;
        lab.cloud.stop()?;
        lab.cloud.start()?;
        let mut desk = Self {
            lab,
            folder,
            syslog: None,
            hook: None,
        };
        desk.start_receivers()?;
        Ok(desk)
    }

    fn cloud(&self) -> &Cloud {
        &self.lab.cloud
    }

    fn start_receivers(&mut self) -> anyhow::Result<()> {
        let host = self.lab.cloud.host();
        let _none = fs::remove_file(self.folder.join("pid"));
        let mut command = host.command("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(syslog_conf(&self.folder)?);
        command.arg("-i").arg(self.folder.join("pid"));
        let syslog = Process::start("rsyslog", command, &self.folder.join("syslog.log"))?;
        let mut command = host.command("/usr/bin/python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/webhook.py"))
            .arg(HOOK_PORT.to_string())
            .arg(self.folder.join("chat.secret"))
            .arg(self.folder.join("hook"));
        let hook = Process::start("webhook", command, &self.folder.join("hook.log"))?;
        (self.syslog, self.hook) = (Some(syslog), Some(hook));
        for port in [SYSLOG_PORT, HOOK_PORT] {
            eventually("a receiver listens", SOON, || {
                let listening = format!("( sport = :{port} )");
                let sockets = run(host.command("ss").args(["-ltnH", &listening]))?;
                anyhow::ensure!(!sockets.trim().is_empty(), "nobody at {port}");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn kill_receivers(&mut self) -> anyhow::Result<()> {
        for receiver in [self.syslog.take(), self.hook.take()] {
            receiver.context("it runs")?.kill()?;
        }
        Ok(())
    }

    /// The alert of a rule that is about something with this text in it.
    fn alert(&self, rule: &str, about: &str) -> anyhow::Result<Value> {
        let all = self
            .cloud()
            .json(&["audit", "alerts", "list", "--all", "--limit", "1000"])?;
        let items = all["items"].as_array().or(all.as_array());
        items
            .context("a list")?
            .iter()
            .find(|alert| {
                alert["rule"] == rule
                    && alert["about"].as_str().is_some_and(|is| is.contains(about))
            })
            .cloned()
            .with_context(|| format!("no {rule} about {about:?}: {all:#}"))
    }

    fn await_alert(&self, rule: &str, about: &str) -> anyhow::Result<Value> {
        eventually(rule, SOON, || self.alert(rule, about))
    }

    /// What the webhook took of one alert: its words by their ids.
    fn hooked(&self, alert: &Value) -> anyhow::Result<BTreeSet<(String, String)>> {
        let text = fs::read_to_string(self.folder.join("hook")).unwrap_or_default();
        let mut words = BTreeSet::new();
        for line in text.lines() {
            let word: Value = serde_json::from_str(line)?;
            anyhow::ensure!(word["refused"].is_null(), "{word}");
            if word["data"]["number"] == alert["number"] {
                let (id, kind) = (word["id"].to_string(), word["type"].to_string());
                words.insert((id, kind));
            }
        }
        Ok(words)
    }

    /// How many lines rsyslog wrote of one alert.
    fn logged(&self, alert: &Value) -> usize {
        let text = fs::read_to_string(self.folder.join("syslog")).unwrap_or_default();
        let number = format!("number=\"{}\"", alert["number"]);
        text.lines().filter(|line| line.contains(&number)).count()
    }

    fn await_told(&self, alert: &Value, patience: Duration) -> anyhow::Result<()> {
        eventually("both receivers have it", patience, || {
            anyhow::ensure!(!self.hooked(alert)?.is_empty(), "no webhook: {alert}");
            anyhow::ensure!(self.logged(alert) > 0, "no syslog: {alert}");
            Ok(())
        })
        .with_context(|| {
            let rules = self.cloud().json(&["audit", "alerts", "rules"]);
            let sinks = rules.map(|rules| rules["sinks"].to_string());
            let said = fs::read_to_string(self.folder.join("syslog.log"));
            let log = self.cloud().log_text();
            let tried: Vec<&str> = log.lines().filter(|line| line.contains("alert")).collect();
            format!(
                "{sinks:?}\n{}\n{}",
                said.unwrap_or_default(),
                tried.join("\n")
            )
        })
    }

    /// As `edgeward node show` says it.
    fn await_shown(&self, node: &str, what: &str, field: &str, word: &str) -> anyhow::Result<()> {
        eventually(what, LATER, || {
            let shown = self.cloud().json(&["node", "show", node])?;
            anyhow::ensure!(shown[field] == word, "{shown:#}");
            Ok(())
        })
    }

    fn await_quarantined(&self, node: &str) -> anyhow::Result<()> {
        self.await_shown(node, "it is quarantined", "status", "quarantined")
    }

    fn await_trusted(&self, node: &str) -> anyhow::Result<()> {
        self.await_shown(node, "it is active", "status", "active")?;
        self.await_shown(node, "it is trusted", "state", "trusted")
    }

    /// The alert of a rule about a node, once it says what became of the quarantine that the rule asks for.
    fn await_act(&self, rule: &str, node: &str) -> anyhow::Result<Value> {
        eventually("its quarantine came to an end", SOON, || {
            let alert = self.alert(rule, &format!("node/{node}"))?;
            let act = alert["quarantine"].as_str().context("none yet")?;
            anyhow::ensure!(!act.starts_with("intended"), "{alert}");
            Ok(alert)
        })
    }

    /// A register of a node that runs is extended: it signs what its profile refuses, and the rule cuts it off.
    fn extended_and_cut_off(&self, node: &mut Node) -> anyhow::Result<()> {
        let name = node.name().to_owned();
        node.tpm.extend(4, &"5a".repeat(32))?;
        self.await_quarantined(&name)?;
        let alert = self.await_act(MISMATCH, &name)?;
        assert_eq!(
            alert["quarantine"],
            format!("quarantined {name}"),
            "{alert}"
        );
        self.await_told(&alert, LATER)?;
        let cut = self
            .cloud()
            .await_event(&["--type", "node.quarantined", "--node", &name])?;
        assert_eq!(
            (&cut["actor"], &cut["code"]),
            (&"cloud".into(), &"automatic".into())
        );
        let why = format!(
            "alert {}: the node itself signed it (quote)",
            alert["number"]
        );
        let reason = cut["detail"]["reason"].as_str().context("a reason")?;
        anyhow::ensure!(reason.starts_with(&why), "{reason}");
        // The register is what it was after the next boot; that alone brings nobody back.
        node.reboot()?;
        node.start()?;
        self.await_quarantined(&name)?;
        self.cloud().edgeward(&["node", "release", &name])?;
        self.cloud()
            .await_event(&["--type", "node.released", "--node", &name])?;
        self.await_trusted(&name)
    }

    fn make_key(&self, name: &str) -> anyhow::Result<Value> {
        self.cloud()
            .edgeward(&["apikey", "create", name, "--role", "auditor"])?;
        self.await_alert("key-made", name)
    }
}

#[test]
fn an_alert_reaches_rsyslog_and_a_webhook_once_and_through_their_deaths() -> anyhow::Result<()> {
    let mut desk = Desk::new("")?;
    let thief = desk.lab.node("thief")?;
    let tried = desk.cloud().json(&["audit", "alerts", "test"])?;
    anyhow::ensure!(!tried.to_string().contains("\"taken\":false"), "{tried:#}");

    // Fewer than the rule says are nobody's business.
    let token = desk.cloud().token(&["--name", "thief"])?;
    let tokens = desk.cloud().json(&["token", "list"])?;
    let id = tokens[0]["id"].as_str().context("a token")?;
    desk.cloud().edgeward(&["token", "revoke", id])?;
    for _ in 0..2 {
        anyhow::ensure!(!thief.try_enrol(&token)?.status.success());
    }
    desk.cloud().await_event(&["--type", "token.refused"])?;
    anyhow::ensure!(desk.alert("token-brute-force", "").is_err());
    anyhow::ensure!(!thief.try_enrol(&token)?.status.success());
    let alert = desk.await_alert("token-brute-force", "anonymous")?;
    desk.await_told(&alert, SOON)?;

    // More of the same is the same alert, and is not said again.
    for _ in 0..2 {
        anyhow::ensure!(!thief.try_enrol(&token)?.status.success());
    }
    eventually("it counts on", SOON, || {
        let now = desk.alert("token-brute-force", "anonymous")?;
        anyhow::ensure!(now["hits"].as_u64() > alert["hits"].as_u64(), "{now}");
        anyhow::ensure!(now["number"] == alert["number"], "{now}");
        Ok(())
    })?;

    // Silenced: kept, and told to nobody.
    desk.cloud().edgeward(&[
        "audit",
        "alerts",
        "silence",
        "--rule",
        "key-made",
        "--about",
        "quiet",
        "--for",
        "1h",
        "--reason",
        "a scenario",
    ])?;
    let quiet = desk.make_key("quiet")?;
    anyhow::ensure!(quiet["silenced"] == true, "{quiet}");

    // Both receivers are dead when it happens, and get it when they are back.
    desk.kill_receivers()?;
    let missed = desk.make_key("missed")?;
    eventually("both words wait", SOON, || {
        let rules = desk.cloud().json(&["audit", "alerts", "rules"])?;
        for sink in rules["sinks"].as_array().context("sinks")? {
            anyhow::ensure!(sink["waiting"].as_u64() > Some(0), "{sink}");
            anyhow::ensure!(sink["error"] != "", "{sink}");
        }
        Ok(())
    })?;
    desk.start_receivers()?;
    desk.await_told(&missed, LATER)?;
    // The cloud dies with a word under way: nothing is lost.
    desk.kill_receivers()?;
    let last = desk.make_key("last")?;
    desk.lab.cloud.kill()?;
    desk.lab.cloud.start()?;
    desk.start_receivers()?;
    desk.await_told(&last, LATER)?;

    assert_eq!(desk.hooked(&alert)?.len(), 1, "said once");
    assert!(desk.hooked(&quiet)?.is_empty() && desk.logged(&quiet) == 0);
    let number = alert["number"].to_string();
    desk.cloud()
        .edgeward(&["audit", "alerts", "ack", &number])?;
    desk.cloud()
        .await_event(&["--type", "alert.acknowledged"])?;
    Ok(())
}

#[test]
fn a_session_that_ends_cuts_nobody_off_and_a_proven_clone_only_within_the_cap() -> anyhow::Result<()>
{
    // None may be cut off by rules: a person must look.
    let mut desk = Desk::new("quarantine_per_hour = 0")?;
    let mut a = desk.lab.member("a", "gateway")?;
    let mut b = desk.lab.member("b", "machine")?;
    // Ready is what a node is by what it stored: its session may not have been opened yet.
    desk.cloud()
        .await_event(&["--type", "session.opened", "--node", "b"])?;
    b.stop()?;
    let gone = desk.await_alert("node-gone", "node/b")?;
    anyhow::ensure!(gone["quarantine"].is_null(), "{gone}");
    let shown = desk.cloud().json(&["node", "show", "b"])?;
    anyhow::ensure!(shown["status"] == "active", "{shown:#}");

    let mut copy = desk.lab.copy_of(&a, "copy")?;
    copy.start()?;
    desk.cloud().await_event(&["--type", "node.cloned"])?;
    let cloned = eventually("the clone is an alert", SOON, || {
        let alert = desk.alert("node-cloned", "node/a")?;
        anyhow::ensure!(!alert["quarantine"].is_null(), "{alert}");
        Ok(alert)
    })?;
    assert_eq!(cloned["quarantine"], "capped a", "{cloned}");
    assert_eq!(cloned["severity"], "critical");
    desk.await_told(&cloned, LATER)?;
    copy.kill()?;
    a.kill()
}

#[test]
fn a_proven_clone_ends_quarantined_under_the_default_rules_until_an_operator_releases_it()
-> anyhow::Result<()> {
    let mut desk = Desk::new("")?;
    let mut a = desk.lab.member("a", "gateway")?;
    let mut copy = desk.lab.copy_of(&a, "copy")?;
    copy.start()?;
    desk.await_quarantined("a")?;
    desk.await_shown("a", "it is said why", "reason", "join_behind")?;
    let cut = desk
        .cloud()
        .await_event(&["--type", "node.quarantined", "--node", "a"])?;
    assert_eq!(
        (&cut["actor"], &cut["code"]),
        (&"cloud".into(), &"clone".into())
    );
    // Whoever finds two holders of an identity locks both at once. The rule, which looks at what is covered, finds that done.
    let cloned = desk.await_act("node-cloned", "a")?;
    assert_eq!(cloned["quarantine"], "not_active a", "{cloned}");
    assert_eq!(cloned["severity"], "critical");
    // And that costs nothing of what rules may cut off within the hour.
    copy.kill()?;
    a.kill()?;
    desk.cloud().edgeward(&["node", "release", "a"])?;
    desk.cloud().await_event(&["--type", "node.released"])?;
    a.start()?;
    desk.await_trusted("a")?;

    let mut b = desk.lab.member("b", "machine")?;
    desk.extended_and_cut_off(&mut b)
}

/// The shipped rule over values that a profile refuses, with the one word changed that its own comment offers.
fn mismatch_that_quarantines() -> anyhow::Result<String> {
    let rule = format!("[alert.{MISMATCH}]");
    let (_, rest) = DEFAULTS.split_once(&rule).context("no such rule")?;
    let (rest, _) = rest
        .split_once("quarantine = false")
        .context("it has none")?;
    anyhow::ensure!(!rest.contains("[alert."), "it is another rule's");
    Ok(format!("{rule}{rest}quarantine = true\n"))
}

fn syslog_conf(folder: &Path) -> anyhow::Result<PathBuf> {
    let at = folder.display();
    let text = format!(
        r#"
global(workDirectory="{at}" maxMessageSize="64k" defaultNetstreamDriverCAFile="{at}/ca.pem"
  defaultNetstreamDriverCertFile="{at}/server.pem" defaultNetstreamDriverKeyFile="{at}/server.key")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" port="{SYSLOG_PORT}" address="127.0.0.1")
template(name="line" type="list") {{
  property(name="msgid") constant(value=" ") property(name="structured-data") constant(value=" ")
  property(name="msg") constant(value="\n")
}}
action(type="omfile" file="{at}/syslog" template="line" asyncWriting="off" flushOnTXEnd="on")
"#
    );
    let path = folder.join("syslog.conf");
    fs::write(&path, text)?;
    Ok(path)
}

/// An authority and the certificate of a receiver at 127.0.0.1, by OpenSSL.
fn certificates(folder: &Path) -> anyhow::Result<()> {
    let openssl = |arguments: &str| {
        run(Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(folder))
    };
    fs::write(
        folder.join("ext"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n",
    )?;
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {new} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"
    ))?;
    openssl(&format!(
        "req {new} -keyout server.key -out server.csr -subj /CN=siem"
    ))?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile ext",
    )?;
    Ok(())
}
