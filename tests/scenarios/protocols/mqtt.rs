use std::path::Path;
use std::process::Output;
use std::time::Duration;

use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, output};

use super::{CALLER, Plant, await_listener};

const PORT: u16 = 1883;
const VERSIONS: [&str; 2] = ["311", "5"];

/// The broker listens on loopback and asks nobody for a password: the gateway says who comes.
const BROKER: &str = "\
listener 1883 127.0.0.1
allow_anonymous true
user root
persistence false
log_type all
log_dest stderr
";

/// A client beside the broker that hears everything; it writes lines as they come.
const LOCAL: [&str; 11] = [
    "-oL",
    "mosquitto_sub",
    "-h",
    "127.0.0.1",
    "-i",
    "local",
    "-t",
    "#",
    "-q",
    "2",
    "-v",
];

/// A broker on the machine, and one of its own clients on the same loopback that hears everything.
struct Broker {
    process: Process,
    heard: Process,
}

impl Broker {
    fn new(plant: &Plant) -> anyhow::Result<Self> {
        let config = plant.machine.folder().join("mosquitto.conf");
        std::fs::write(&config, BROKER)?;
        let config = config.display().to_string();
        let mosquitto = Path::new("/usr/sbin/mosquitto");
        let mut process = plant.serve("mosquitto", mosquitto, &["-c", &config])?;
        await_listener(&plant.machine, PORT, &mut process)?;
        let heard = plant.serve("heard", Path::new("stdbuf"), &LOCAL)?;
        eventually("the local client hears", Duration::from_secs(10), || {
            anyhow::ensure!(process.log_text().contains("Sending SUBACK to local"));
            Ok(())
        })?;
        Ok(Self { process, heard })
    }

    /// Waits until a message reached the broker.
    fn await_heard(&self, message: &str) -> anyhow::Result<()> {
        eventually(message, Duration::from_secs(20), || {
            let heard = self.heard.log_text();
            anyhow::ensure!(heard.lines().any(|line| line == message), "heard: {heard}");
            Ok(())
        })
    }

    fn has_heard(&self, part: &str) -> bool {
        self.heard.log_text().contains(part)
    }
}

impl Plant {
    /// One of mosquitto's own clients on the other node.
    fn mosquitto(&self, program: &str, version: &str, more: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.caller.host().command(program);
        command.args(["-h", &self.address()?, "-V", version]);
        output(command.args(more))
    }

    fn publishes(
        &self,
        version: &str,
        topic: &str,
        qos: &str,
        text: &str,
    ) -> anyhow::Result<Output> {
        let more = [
            "-t", topic, "-q", qos, "-m", text, "-u", "root", "-P", "secret",
        ];
        self.mosquitto("mosquitto_pub", version, &more)
    }

    /// From the machine itself, past the gateway.
    fn says(&self, topic: &str, text: &str) -> anyhow::Result<()> {
        let mut command = self.machine.host().command("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-t", topic, "-m", text, "-q", "1"]);
        edgeward_tests::process::run(&mut command).map(|_| ())
    }
}

fn told(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn topics_are_opened_one_by_one_for_both_versions() -> anyhow::Result<()> {
    let plant = Plant::new("")?;
    let broker = Broker::new(&plant)?;
    eventually("the broker is reached", Duration::from_secs(60), || {
        let published = plant.publishes("5", "line3/1/temp", "1", "first")?;
        anyhow::ensure!(published.status.success(), "{}", told(&published));
        Ok(())
    })?;
    broker.await_heard("line3/1/temp first")?;

    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let text = format!("{version}-{qos}");
            let published = plant.publishes(version, "line3/2/temp", qos, &text)?;
            anyhow::ensure!(published.status.success(), "{}", told(&published));
            broker.await_heard(&format!("line3/2/temp {text}"))?;
            // Refused: said so in MQTT 5, acknowledged and dropped in 3.1.1. Either way the client comes to an end.
            let refused = plant.publishes(version, "line3/2/setpoint", qos, "never")?;
            if version == "5" && qos != "0" {
                anyhow::ensure!(
                    told(&refused).contains("Not authorized"),
                    "{}",
                    told(&refused)
                );
            }
        }
    }
    // After everything that was refused, what is allowed still comes, and nothing else came before it.
    plant.publishes("311", "line3/9/temp", "2", "last")?;
    broker.await_heard("line3/9/temp last")?;
    anyhow::ensure!(!broker.has_heard("never"), "a refused message got through");

    // The broker knows its client by the proven name, in user name and identifier, and saw no password.
    let log = broker.process.log_text();
    anyhow::ensure!(log.contains(&format!("u'{CALLER}'")), "{log}");
    anyhow::ensure!(log.contains(&format!("as {CALLER}|")), "{log}");
    anyhow::ensure!(
        !log.contains("u'root'"),
        "the client's own user name got through"
    );

    plant.await_event("flow.denied", &["plant/broker", "no-action", CALLER])?;
    plant.await_event(
        "flow.allowed",
        &["plant/broker", "gateways-use-plant", "publish"],
    )
}

#[test]
fn filters_are_opened_one_by_one_and_closed_when_rules_go() -> anyhow::Result<()> {
    let plant = Plant::new("")?;
    let mut broker = Broker::new(&plant)?;
    eventually("the broker is reached", Duration::from_secs(60), || {
        let published = plant.publishes("5", "line3/1/temp", "1", "first")?;
        anyhow::ensure!(published.status.success(), "{}", told(&published));
        Ok(())
    })?;
    for version in VERSIONS {
        // One filter of three is allowed. What is said on the others is not heard.
        let mut command = plant.caller.host().command("stdbuf");
        command.args(["-oL", "mosquitto_sub"]);
        let (address, id) = (plant.address()?, format!("sub-{version}"));
        command.args([
            "-h", &address, "-V", version, "-i", &id, "-q", "2", "-v", "-d",
        ]);
        command.args(["-t", "#", "-t", "cmd/line3/#", "-t", "$share/g/cmd/line4/#"]);
        command.args(["--will-topic", "line3/7/temp", "--will-payload", &id]);
        let log = plant.caller.folder().join(&id);
        let mut subscriber = Process::start(&id, command, &log)?;
        let denied = if version == "5" { "135" } else { "128" };
        eventually("it subscribes", Duration::from_secs(20), || {
            subscriber.check()?;
            let told = subscriber.log_text();
            let granted = format!("Subscribed (mid: 1): {denied}, 2, {denied}");
            anyhow::ensure!(told.contains(&granted), "{told}");
            Ok(())
        })?;
        plant.says("cmd/line4/go", "not-for-you")?;
        plant.says("line3/1/temp", "nor-this")?;
        plant.says("cmd/line3/go", "for-you")?;
        eventually("it hears", Duration::from_secs(20), || {
            let told = subscriber.log_text();
            anyhow::ensure!(told.contains("cmd/line3/go for-you"), "{told}");
            Ok(())
        })?;
        let told = subscriber.log_text();
        anyhow::ensure!(
            !told.contains("not-for-you") && !told.contains("nor-this"),
            "{told}"
        );
        // Killed: its will, to a topic that it may publish to, is published.
        subscriber.kill()?;
        broker.await_heard(&format!("line3/7/temp {id}"))?;
    }

    // A will to a topic that is not allowed: not connected at all.
    let more = [
        "-t",
        "cmd/line3/#",
        "--will-topic",
        "cmd/line3/go",
        "--will-payload",
        "x",
        "-W",
        "5",
    ];
    for (version, said) in [("311", "not authori"), ("5", "Not authori")] {
        let refused = plant.mosquitto("mosquitto_sub", version, &more)?;
        let told = told(&refused).to_lowercase();
        anyhow::ensure!(told.contains(&said.to_lowercase()), "{told}");
    }
    // What is no MQTT is closed and recorded.
    let mut command = plant.caller.host().command("curl");
    let url = format!("http://[{}]:{PORT}/", plant.address()?);
    let refused = output(command.args(["-sS", "--max-time", "5", &url]))?;
    anyhow::ensure!(!refused.status.success(), "HTTP was answered");
    plant.await_event("flow.denied", &["plant/broker", "malformed"])?;

    // The rule goes: the connection ends, and so does the right to a will.
    let mut command = plant.caller.host().command("mosquitto_sub");
    let address = plant.address()?;
    command.args(["-h", &address, "-i", "lost", "-q", "1", "-t", "cmd/line3/#"]);
    command.args(["--will-topic", "line3/8/temp", "--will-payload", "void"]);
    let log = plant.caller.folder().join("lost");
    let mut subscriber = Process::start("lost", command, &log)?;
    let lost = format!("{CALLER}|lost");
    let logged = |broker: &Broker, what: &str| broker.process.log_text().contains(what);
    eventually("it is connected", Duration::from_secs(20), || {
        subscriber.check()?;
        anyhow::ensure!(logged(&broker, &format!("Sending SUBACK to {lost}")));
        Ok(())
    })?;
    plant.take_rules_away()?;
    eventually(
        "the broker is told that it left",
        Duration::from_secs(30),
        || {
            anyhow::ensure!(logged(&broker, &format!("Received DISCONNECT from {lost}")));
            Ok(())
        },
    )?;
    plant.says("line3/1/temp", "after-all")?;
    broker.await_heard("line3/1/temp after-all")?;
    anyhow::ensure!(
        !broker.has_heard("void"),
        "a will was published without a right"
    );
    broker.process.check()
}
