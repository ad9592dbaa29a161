use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, run};
use serde_json::{Value, json};

use super::{Plant, await_listener, client, python};

/// Where the server listens; the interface is at 502.
const SERVER_PORT: u16 = 1502;

fn server(plant: &Plant) -> anyhow::Result<Process> {
    let (script, port) = (client("modbus.py"), SERVER_PORT.to_string());
    let arguments = [script.as_str(), "serve", "127.0.0.1", &port];
    let mut server = plant.serve("pymodbus", &python()?, &arguments)?;
    await_listener(&plant.machine, SERVER_PORT, &mut server)?;
    Ok(server)
}

/// What the client of pymodbus gets from the other node, line by line.
fn ask(plant: &Plant) -> anyhow::Result<Vec<Value>> {
    let mut command = plant.caller.host().command(python()?);
    command.args([&client("modbus.py"), "ask", &plant.address()?, "502"]);
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
