//! Binds on demand: the first packet opens them, silence closes them, and nothing that was allowed is lost by it. And
//! what a node costs whose link is paid by the byte.

use std::path::Path;
use std::time::{Duration, Instant};

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, output, run};

use crate::routes::{Cells, DATAGRAM, EXIT, EXIT_RULE, ROUTER, RULE, ask, python};
use crate::traffic::{overlay, reaches, serve};

/// Open by the quickstart's policy, from gateways to machines.
const STATUS: u16 = 8080;
/// Longer than the first packet may need under load: enrolment is over by then.
const DEADLINE: Duration = Duration::from_secs(30);
/// Behind nobody.
const NOWHERE: &str = "192.168.99.9";
/// What a metered node may send and receive in a minute between two challenges, in bytes, ARP and the like included: a
/// megabyte a day is 694 a minute, challenges included.
const QUIET_MINUTE_BYTES: u64 = 4_000;
/// What a node that is not metered cannot do with, so that the bound above says something.
const USUAL_MINUTE_BYTES: u64 = 2 * QUIET_MINUTE_BYTES;

/// Opens a connection, waits for a file to appear, then asks for the page.
const PATIENT: &str = r#"
import os, socket, sys, time
address, port, cue, told = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
link = socket.create_connection((address, port), timeout=60)
open(told, "w").write("open")
while not os.path.exists(cue):
    time.sleep(0.1)
link.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = b""
while True:
    some = link.recv(4096)
    if not some:
        break
    answer += some
open(told, "w").write(answer.decode().splitlines()[-1])
"#;

/// The peers that WireGuard has keys of.
fn armed(node: &Node) -> anyhow::Result<usize> {
    Ok(node.wg_show(&["peers"])?.lines().count())
}

fn await_asleep(node: &Node) -> anyhow::Result<()> {
    await_armed(node, 0)
}

fn await_armed(node: &Node, count: usize) -> anyhow::Result<()> {
    eventually("no other bind is left", DEADLINE, || {
        anyhow::ensure!(armed(node)? == count, "{}", node.wg_show(&[])?);
        Ok(())
    })
}

/// The node holds policy and directory: from now on a packet can wake its peers.
fn await_directory(node: &Node) -> anyhow::Result<()> {
    eventually("the node knows whom it may meet", DEADLINE, || {
        let status = node.status()?;
        anyhow::ensure!(status["directory"].as_u64() > Some(0), "{status}");
        anyhow::ensure!(!status["slice"].is_null(), "{status}");
        Ok(())
    })
}

#[test]
fn a_packet_opens_a_bind_and_silence_closes_it_on_both_sides_and_connections_outlive_that()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let lines = "binds = \"on-demand\"\nidle_after = \"4s\"";
    let a = lab.member_with("a", "gateway", lines)?;
    let b = lab.member_with("b", "machine", lines)?;
    let _status = serve(&b, STATUS)?;
    await_directory(&a)?;
    await_directory(&b)?;
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((armed(&a)?, armed(&b)?), (0, 0), "nobody asked for a bind");

    // The very first connection gets through: its first packet waits for the tunnel.
    eventually("the first packet opens the bind", DEADLINE, || {
        anyhow::ensure!(reaches(&a, &b, STATUS, 5)?, "{}", a.log_text());
        Ok(())
    })?;
    assert_eq!((armed(&a)?, armed(&b)?), (1, 1));

    let (cue, told) = (a.folder().join("cue"), a.folder().join("told"));
    let mut patient = a.host().command("python3");
    patient.args([
        "-c",
        PATIENT,
        &overlay(&b)?.to_string(),
        &STATUS.to_string(),
    ]);
    patient.arg(&cue).arg(&told);
    let _patient = Process::start("patient", patient, &a.folder().join("patient.log"))?;
    await_file(&told, "open")?;
    await_asleep(&a)?;
    await_asleep(&b)?;
    let closed = lab.cloud.await_event(&["--type", "bind.closed"])?;
    assert_eq!(closed["code"], "bind_idle", "{closed}");
    assert!(lab.cloud.events(&["--type", "cut.effected"])?.is_empty());

    // The connection of before goes on as if nothing had been.
    std::fs::write(&cue, "")?;
    await_file(&told, "b")?;

    // The other side's packet opens a bind too, though no rule lets it through.
    await_asleep(&a)?;
    await_asleep(&b)?;
    assert!(!reaches(&b, &a, STATUS, 2)?, "no rule for this direction");
    assert_eq!((armed(&a)?, armed(&b)?), (1, 1));
    Ok(())
}

#[test]
fn a_node_that_keeps_all_bound_lets_a_peer_sleep_that_wants_to() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let a = lab.member("a", "gateway")?;
    let lines = "binds = \"on-demand\"\nidle_after = \"4s\"";
    let b = lab.member_with("b", "machine", lines)?;
    let _status = serve(&b, STATUS)?;
    eventually("the bind opens without a packet", DEADLINE, || {
        let binds = a.status()?["binds"].clone();
        anyhow::ensure!(binds[0]["open"] == true, "{binds}");
        Ok(())
    })?;
    await_asleep(&b)?;
    await_asleep(&a)?;
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((armed(&a)?, armed(&b)?), (0, 0), "it was dialled again");
    eventually("a packet wakes it", DEADLINE, || {
        anyhow::ensure!(reaches(&a, &b, STATUS, 5)?, "{}", a.log_text());
        Ok(())
    })
}

/// Packets into the tunnel that the kernel dropped.
fn dropped(node: &Node) -> anyhow::Result<u64> {
    let rules = run(node.host().command("nft").args(["list", "ruleset"]))?;
    let ours = rules.lines().filter(|line| line.contains("@asleepnets"));
    let packets = ours.filter_map(|line| {
        let (_, counter) = line.split_once("counter packets ")?;
        counter.split_whitespace().next()?.parse::<u64>().ok()
    });
    let packets: Vec<u64> = packets.collect();
    anyhow::ensure!(packets.len() == 4, "{rules}");
    Ok(packets.iter().sum())
}

/// Whether the kernel lets packets to this address wake somebody.
fn wakes(node: &Node, address: &str) -> anyhow::Result<bool> {
    // As the agent spells it.
    let device = node.device().replace('_', "_u").replace('-', "_h");
    let table = format!("edgeward_{device}");
    let element = format!("{{ {address} }}");
    let words = ["get", "element", "inet", &table, "asleepnets6", &element];
    Ok(output(node.host().command("nft").args(words))?
        .status
        .success())
}

/// From its next start the node's kernel learns of networks half a second late: longer than an answer takes.
fn write_leases_of_networks_slowly(node: &mut Node) -> anyhow::Result<()> {
    let path = std::env::var("PATH")?;
    let nft = run(node.host().command("sh").args(["-c", "command -v nft"]))?;
    let folder = node.folder().join("slow");
    std::fs::create_dir_all(&folder)?;
    let script = format!(
        "#!/bin/sh\ntext=$(cat)\ncase $text in *' nets6'*) sleep 0.5;; esac\n\
         printf '%s\\n' \"$text\" | exec {} \"$@\"\n",
        nft.trim()
    );
    let slow = folder.join("nft");
    std::fs::write(&slow, script)?;
    run(node.host().command("chmod").arg("755").arg(&slow))?;
    node.stop()?;
    node.set_environment("PATH", &format!("{}:{path}", folder.display()));
    node.start()?;
    node.await_ready()
}

/// One datagram and its answer, with everybody asleep but `awake` at first.
fn woken_by_a_datagram(
    node: &Node,
    (name, address): (&str, &str),
    awake: usize,
) -> anyhow::Result<()> {
    await_armed(node, awake)?;
    eventually("no lease is left of the network", DEADLINE, || {
        anyhow::ensure!(wakes(node, address)?);
        Ok(())
    })?;
    let said = run(&mut python(node.host(), DATAGRAM, address))?;
    anyhow::ensure!(said.trim() == format!("{name} {ROUTER}"), "{said}");
    anyhow::ensure!(armed(node)? == awake + 1, "{}", node.wg_show(&[])?);
    Ok(())
}

#[test]
fn a_packet_to_a_network_behind_a_sleeping_peer_wakes_it_and_one_to_any_other_nobody()
-> anyhow::Result<()> {
    let lines = "binds = \"on-demand\"\nidle_after = \"4s\"";
    let mut cells = Cells::with(lines, lines)?;
    write_leases_of_networks_slowly(&mut cells.gateway)?;
    let gateway = &cells.gateway;
    let (host, device) = (gateway.host(), gateway.device());
    cells.apply("")?;
    let (b, c) = (cells.seen("b", 17)?, cells.seen("c", 17)?);
    await_directory(gateway)?;
    run(host
        .command("ip")
        .args(["route", "add", NOWHERE, "dev", &device]))?;
    let refused = |address: &str| -> anyhow::Result<()> {
        await_asleep(gateway)?;
        let before = dropped(gateway)?;
        anyhow::ensure!(
            ask(host, address, 2600, 1).is_err(),
            "{address} is answered"
        );
        anyhow::ensure!(
            dropped(gateway)? > before,
            "packets to {address} reach the agent"
        );
        anyhow::ensure!(armed(gateway)? == 0, "{address} wakes somebody");
        Ok(())
    };
    // No rule opens anything there, so the slice does not give the network.
    for address in [b.as_str(), &c, NOWHERE] {
        refused(address)?;
    }

    cells.apply(RULE)?;
    eventually("the kernel knows who may be woken", DEADLINE, || {
        anyhow::ensure!(wakes(gateway, &b)? && wakes(gateway, &c)?);
        Ok(())
    })?;
    for address in [&b, &c] {
        eventually("a connection wakes whoever leads there", DEADLINE, || {
            await_asleep(gateway)?;
            ask(host, address, 2600, 1 << 20).map(|_| ())
        })?;
        anyhow::ensure!(!wakes(gateway, address)?, "it has a lease instead");
    }
    // The very first datagram waits for the tunnel, and its answer comes in. Only under load may one wait too long.
    if woken_by_a_datagram(gateway, ("c", &c), 0).is_err() {
        woken_by_a_datagram(gateway, ("c", &c), 0)?;
    }
    refused(NOWHERE)?;

    cells.apply("")?;
    eventually("the network is given no more", DEADLINE, || {
        anyhow::ensure!(!wakes(gateway, &b)? && !wakes(gateway, &c)?);
        Ok(())
    })?;
    refused(&b)
}

#[test]
fn whoever_sleeps_is_woken_though_somebody_awake_is_the_way_to_everywhere() -> anyhow::Result<()> {
    let lines = "binds = \"on-demand\"\nidle_after = \"8s\"";
    let cells = Cells::with(&format!("{lines}\nexit = \"b\""), lines)?;
    let gateway = &cells.gateway;
    cells.apply(RULE)?;
    let exit = format!("{EXIT}\n{EXIT_RULE}");
    cells.lab.policy_with("exit.toml", &exit)?;
    let c = cells.seen("c", 17)?;
    eventually("the exit leads", 2 * DEADLINE, || {
        let status = gateway.status()?;
        anyhow::ensure!(status["exit"]["state"] == "leads", "{status}");
        anyhow::ensure!(wakes(gateway, &c)?, "{}", gateway.log_text());
        Ok(())
    })?;
    eventually("one datagram wakes and is answered", 2 * DEADLINE, || {
        woken_by_a_datagram(gateway, ("c", &c), 1)
    })?;
    await_armed(gateway, 1)?;
    let _status = serve(&cells.machines[1], STATUS)?;
    eventually("its own address wakes it too", DEADLINE, || {
        anyhow::ensure!(reaches(gateway, &cells.machines[1], STATUS, 5)?);
        Ok(())
    })
}

#[test]
fn a_metered_node_is_quiet_while_nothing_happens_and_cut_at_once_all_the_same() -> anyhow::Result<()>
{
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let lines = "metered = true\nidle_after = \"4s\"";
    let metered = lab.member_with("a", "gateway", lines)?;
    let usual = lab.member("c", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_directory(&metered)?;
    eventually("the first packet opens the bind", DEADLINE, || {
        anyhow::ensure!(reaches(&metered, &b, STATUS, 5)?, "{}", metered.log_text());
        Ok(())
    })?;
    await_asleep(&metered)?;
    // What the end of the bind has to tell is gathered for a minute at most; this is about what comes after.
    std::thread::sleep(Duration::from_secs(10));
    let before = (carried(&metered)?, carried(&usual)?);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(25));
    let after = (carried(&metered)?, carried(&usual)?);
    let minute =
        |bytes: u64| bytes * 60_000 / u64::try_from(begun.elapsed().as_millis()).unwrap_or(1);
    let (quiet, loud) = (minute(after.0 - before.0), minute(after.1 - before.1));
    println!("bytes a minute: metered {quiet}, usual {loud}");
    assert!(quiet <= QUIET_MINUTE_BYTES, "{quiet} bytes a minute");
    assert!(
        loud >= USUAL_MINUTE_BYTES,
        "{loud} bytes a minute: the bound says nothing"
    );
    // Half a minute without a heartbeat, and not cut off: it was promised few. The last came with a challenge, which
    // may be younger than what was measured.
    let status = eventually(
        "half a minute goes by without a heartbeat",
        Duration::from_secs(15),
        || {
            let status = metered.status()?;
            anyhow::ensure!(status["heartbeat_age_secs"].as_u64() > Some(30), "{status}");
            Ok(status)
        },
    )?;
    assert_ne!(status["link"], "cut-off", "{status}");

    lab.cloud.edgeward(&["node", "quarantine", "b"])?;
    eventually(
        "the metered node has heard of the cut",
        Duration::from_secs(5),
        || {
            let status = metered.status()?;
            anyhow::ensure!(status["cut"].as_u64() > Some(0), "{status}");
            Ok(())
        },
    )
}

/// Bytes in and out of the node's cable.
fn carried(node: &Node) -> anyhow::Result<u64> {
    let mut sum = 0;
    for way in ["rx_bytes", "tx_bytes"] {
        let path = format!("/sys/class/net/eth0/statistics/{way}");
        let text = run(node.host().command("cat").arg(path))?;
        sum += text.trim().parse::<u64>()?;
    }
    Ok(sum)
}

fn await_file(path: &Path, text: &str) -> anyhow::Result<()> {
    eventually("the connection gets on", DEADLINE, || {
        let told = std::fs::read_to_string(path).unwrap_or_default();
        anyhow::ensure!(told == text, "{told:?}");
        Ok(())
    })
}
