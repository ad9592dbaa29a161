use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::eventually::eventually;
use edgeward_tests::netns::Host;
use edgeward_tests::process::{Process, run};
use serde_json::{Value, json};

use super::{Plant, await_listener, client, python};

/// Where the server listens; the interface is at 502.
const SERVER_PORT: u16 = 1502;

/// The network that the machine's agent knows as `lan0`.
const LAN: &str = "[interfaces]\nlan0 = \"eth0\"";

/// The same registers for devices on the machine's own network, who speak plain Modbus there.
const ON_LAN: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["quickstart"] }

[group.sensors]
match = { site = ["quickstart"], kind = ["sensor"] }
via   = "machines"

[service.floor]
on = "machines"

  [service.floor.interface.registers]
  net = "lan0"
  l4  = "tcp/2502"
  to  = "127.0.0.1:1502"
  l7  = { proto = "modbus", actions = { read = ["fc:3"], write = ["fc:16"] } }

[[rule]]
id     = "sensors-read"
effect = "allow"
from   = ["group:sensors"]
to     = ["floor/registers"]
do     = ["read"]
"#;

fn server(plant: &Plant) -> anyhow::Result<Process> {
    let (script, port) = (client("modbus.py"), SERVER_PORT.to_string());
    let arguments = [script.as_str(), "serve", "127.0.0.1", &port];
    let mut server = plant.serve("pymodbus", &python()?, &arguments)?;
    await_listener(&plant.machine, SERVER_PORT, &mut server)?;
    Ok(server)
}

/// What the client of pymodbus gets from the other node, line by line.
fn ask(plant: &Plant) -> anyhow::Result<Vec<Value>> {
    ask_from(plant.caller.host(), &plant.address()?, "502")
}

fn ask_from(host: &Host, address: &str, port: &str) -> anyhow::Result<Vec<Value>> {
    let mut command = host.command(python()?);
    command.args([&client("modbus.py"), "ask", address, port]);
    let told = run(&mut command)?;
    told.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

#[test]
fn registers_are_read_and_written_where_policy_says_and_nowhere_else() -> anyhow::Result<()> {
    let plant = Plant::new("")?;
    let server = server(&plant)?;
    let mut told = Vec::new();
    eventually(
        "the server answers through the gateway",
        Duration::from_secs(60),
        || {
            told = ask(&plant)?;
            Ok(())
        },
    )?;
    let [answers, raw] = told.as_slice() else {
        anyhow::bail!("not two lines: {told:?}");
    };
    let exception = |code: u8| json!({ "exception": code });
    let expected = [
        ("read", json!({ "values": [7, 7, 7] })),
        ("read_past", exception(2)),
        // Both ranges of the action touch: what spans them is allowed, and was done.
        ("read_span", json!({ "values": [1, 2, 3, 4] })),
        ("write_past", exception(2)),
        ("read_unchanged", json!({ "values": [7, 7, 7, 7, 7] })),
        // Functions that no action has; a unit that none names; an action that no rule allows.
        ("read_and_write", exception(1)),
        ("mask", exception(1)),
        ("other_unit", exception(1)),
        ("identify", exception(1)),
        ("read_after_all", json!({ "values": [7] })),
    ];
    for (name, value) in expected {
        anyhow::ensure!(answers[name] == value, "{name}: {}", answers[name]);
    }
    anyhow::ensure!(
        answers["write_span"].get("exception").is_none(),
        "{answers}"
    );
    anyhow::ensure!(raw["pipelined"] == true, "{raw}");
    anyhow::ensure!(
        raw["closed_on"] == json!([true, true, true, true, true]),
        "{raw}"
    );

    // None of what was refused reached the server: it says every frame that it reads.
    let seen = server.log_text();
    let function = |line: &str| {
        line.strip_prefix("received ")?
            .get(14..16)
            .map(str::to_owned)
    };
    let functions: BTreeSet<String> = seen.lines().filter_map(function).collect();
    anyhow::ensure!(
        functions.iter().eq(["03", "10"]),
        "{functions:?} got through"
    );
    plant.await_event(
        "flow.denied",
        &["plant/registers", "no-action", super::CALLER],
    )?;
    plant.await_event("flow.denied", &["plant/registers", "no-rule", "identify"])?;
    for wrong in ["protocol", "length", "function", "count"] {
        plant.await_event("flow.denied", &["plant/registers", "malformed", wrong])?;
    }
    plant.await_event(
        "flow.allowed",
        &["plant/registers", "gateways-use-registers", "write"],
    )
}

#[test]
fn a_device_on_the_nodes_own_network_reads_registers_and_a_stranger_beside_it_does_not()
-> anyhow::Result<()> {
    let mut plant = Plant::new(LAN)?;
    let _server = server(&plant)?;
    let (sensor, stranger) = (plant.lab.host("sensor")?, plant.lab.host("stranger")?);
    let mac = run(sensor.command("cat").arg("/sys/class/net/eth0/address"))?;
    let device = format!(
        "\n[device.sensor-1]\nnode = \"b\"\ninterface = \"lan0\"\nlabels = {{ site = \"quickstart\", kind = \"sensor\" }}\n\
         match = {{ mac = \"{}\", ip = \"{}\" }}\n",
        mac.trim(),
        sensor.ipv4()
    );
    let text = format!("{ON_LAN}{device}");
    plant.lab.policy_with("floor.toml", &text)?;
    let address = plant.machine.host().ipv4();
    let mut told = Vec::new();
    eventually("the device is answered", Duration::from_secs(60), || {
        told = ask_from(&sensor, &address, "2502")?;
        Ok(())
    })?;
    let answers = told.first().context("nothing told")?;
    anyhow::ensure!(
        answers["read"] == json!({ "values": [7, 7, 7] }),
        "{answers}"
    );
    anyhow::ensure!(
        answers["write_span"] == json!({ "exception": 1 }),
        "{answers}"
    );
    anyhow::ensure!(
        answers["read_span"] == json!({ "values": [7, 7, 7, 7] }),
        "{answers}"
    );
    // Nobody else on that network gets an answer, whatever he asks.
    anyhow::ensure!(
        ask_from(&stranger, &address, "2502").is_err(),
        "a stranger was answered"
    );
    let sensor_id = "spiffe://plant.example/device/sensor-1";
    plant.await_event("flow.denied", &["floor/registers", "no-rule", sensor_id])?;
    plant.await_event(
        "flow.denied",
        &["floor/registers", "unknown-subject", &stranger.ipv4()],
    )
}
