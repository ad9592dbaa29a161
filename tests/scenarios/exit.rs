//! A machine that leaves to the internet through another node, and never sends there what keeps it up: its session with
//! the cloud and the tunnel's own port, though cloud and exit are both beyond the very route that leads into the tunnel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::{QUICKSTART_POLICY, copy_folder};
use edgeward_tests::nat::{Nat, Site};
use edgeward_tests::netns::Host;
use edgeward_tests::process::{Process, run, run_with_input};

use crate::routes::{EXIT, EXIT_RULE, SERVER, ask};

const SOON: Duration = Duration::from_secs(60);
/// Addresses of the internet: of somebody there, of the cloud, of the exit.
const SOMEBODY: &str = "9.9.9.9";
const CLOUD: &str = "9.9.9.10";
const EXIT_OUTSIDE: &str = "8.8.8.8";
const CLOUD_PORT: u16 = 7443;
const PORT: u16 = 2600;

/// Connects; nothing is said.
const CONNECT: &str = r#"
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
"#;

struct World {
    lab: Lab,
    policy: PathBuf,
    home: Site,
    client: Node,
    exit: Node,
    neighbour: Host,
    _servers: Vec<Process>,
}

impl World {
    /// The client is at home, behind a router; everybody else is outside. `lines` go into its configuration.
    fn new(lines: &str) -> anyhow::Result<Self> {
        let mut lab = Lab::with_policy(&CloudOptions::default())?;
        let policy = lab.folder().join("policy");
        copy_folder(Path::new(QUICKSTART_POLICY), &policy)?;
        let internet = lab.host("internet")?;
        let exit = lab.node("b")?;
        let address = |host: &Host, address: &str| {
            let words = ["addr", "add", address, "dev", "eth0"];
            run(host.command("ip").args(words)).map(|_| ())
        };
        address(&internet, SOMEBODY)?;
        address(lab.cloud.host(), CLOUD)?;
        address(exit.host(), EXIT_OUTSIDE)?;
        let up = internet.ipv4();
        let way = ["route", "add", "default", "via", &up];
        run(exit.host().command("ip").args(way))?;
        configure(&exit, &format!("advertise = [\"{EXIT_OUTSIDE}:51820\"]"))?;
        let exit = lab.enrolled(exit, "machine")?;
        count_riders(&exit)?;

        let mut home = lab.site("home", Nat::PortRestricted)?;
        for net in ["9.9.9.0/24", "8.8.8.0/24"] {
            let way = ["route", "add", net, "dev", "eth0"];
            run(home.router().command("ip").args(way))?;
        }
        // The exit is reached by its address on the internet, or not at all.
        nft(
            home.router(),
            &format!(
                "table ip shut {{\n chain f {{ type filter hook forward priority -10; \
                 ip daddr {} udp dport 51820 drop; }}\n}}\n",
                exit.host().ipv4()
            ),
        )?;
        let neighbour = lab.network.host_at(&mut home, "neighbour")?;
        let client = lab.node_at(&mut home, "a")?;
        configure(
            &client,
            &format!("exit = \"b\"\ncloud = [\"{CLOUD}:{CLOUD_PORT}\"]\n{lines}"),
        )?;
        let client = lab.enrolled(client, "gateway")?;
        let mut servers = Vec::new();
        for (host, name) in [(&internet, "internet"), (&neighbour, "neighbour")] {
            let mut server = host.command("python3");
            server.args(["-c", SERVER, name]);
            let log = lab.folder().join(name);
            servers.push(Process::start(name, server, &log)?);
        }
        Ok(Self {
            lab,
            policy,
            home,
            client,
            exit,
            neighbour,
            _servers: servers,
        })
    }

    fn apply(&self, rules: &str) -> anyhow::Result<()> {
        std::fs::write(self.policy.join("exit.toml"), format!("{EXIT}\n{rules}"))?;
        let folder = self.policy.display().to_string();
        let applied = self.lab.cloud.edgeward(&["policy", "apply", &folder]);
        applied.map(|_| ())
    }

    /// What the client's agent says of the internet, while its session is up.
    fn state(&self) -> anyhow::Result<String> {
        let status = self.client.status()?;
        anyhow::ensure!(status["connected"] == true, "no session: {status}");
        let state = status["exit"]["state"].as_str().unwrap_or_default();
        Ok(state.to_owned())
    }

    fn await_state(&self, wanted: &str) -> anyhow::Result<()> {
        eventually(&format!("the internet is {wanted}"), SOON, || {
            let state = self.state()?;
            anyhow::ensure!(state == wanted, "it is {state:?}");
            Ok(())
        })
    }

    /// Whom somebody on the internet takes the client for.
    fn seen_as(&self) -> anyhow::Result<String> {
        let said = ask(self.client.host(), SOMEBODY, PORT, 1)?;
        let seen = said.strip_prefix("internet ");
        let seen = seen.ok_or_else(|| anyhow::anyhow!("{said}"))?;
        Ok(seen.to_owned())
    }

    fn await_seen_as(&self, wanted: &str) -> anyhow::Result<()> {
        eventually(&format!("the client is seen as {wanted}"), SOON, || {
            let seen = self.seen_as()?;
            anyhow::ensure!(seen == wanted, "it is {seen}");
            Ok(())
        })
    }

    fn through_exit(&self) -> String {
        self.exit.host().ipv4()
    }

    fn ensure_lan(&self) -> anyhow::Result<()> {
        let said = ask(self.client.host(), &self.neighbour.ipv4(), PORT, 1)?;
        anyhow::ensure!(said.starts_with("neighbour "), "{said}");
        Ok(())
    }

    /// The agent's rules and routes on the client.
    fn ours(&self) -> anyhow::Result<String> {
        let list = |words: &[&str]| run(self.client.host().command("ip").args(words));
        let rules = [list(&["rule", "list"])?, list(&["-6", "rule", "list"])?].concat();
        let rules = rules.lines().filter(|line| line.starts_with("23"));
        Ok([
            rules.collect::<Vec<&str>>().join("\n"),
            list(&["route", "show", "table", "all", "proto", "237"])?,
            list(&["-6", "route", "show", "table", "all", "proto", "237"])?,
        ]
        .concat())
    }

    /// Packets for the cloud that the exit was to forward.
    fn riders(&self) -> anyhow::Result<u64> {
        let words = ["-j", "list", "counter", "ip", "watch", "riders"];
        let text = run(self.exit.host().command("nft").args(words))?;
        let told: serde_json::Value = serde_json::from_str(&text)?;
        let counters = told["nftables"].as_array().into_iter().flatten();
        let packets = counters
            .filter_map(|part| part["counter"]["packets"].as_u64())
            .next();
        packets.ok_or_else(|| anyhow::anyhow!("no counter in {text}"))
    }
}

fn configure(node: &Node, lines: &str) -> anyhow::Result<()> {
    let path = node.folder().join("agent.toml");
    let before = std::fs::read_to_string(&path)?;
    Ok(std::fs::write(path, format!("{lines}\n{before}"))?)
}

fn nft(host: &Host, text: &str) -> anyhow::Result<()> {
    let mut command = host.command("nft");
    command.args(["-f", "-"]);
    run_with_input(&mut command, text)
}

fn count_riders(exit: &Node) -> anyhow::Result<()> {
    nft(
        exit.host(),
        &format!(
            "table ip watch {{\n counter riders {{ }}\n chain f {{ type filter hook forward priority -400; \
             ip daddr {CLOUD} counter name riders; }}\n}}\n"
        ),
    )
}

fn connect(from: &Host, address: &str, port: u16) -> Command {
    let mut command = from.command("python3");
    command.args(["-c", CONNECT, address, &port.to_string()]);
    command
}

#[test]
fn the_internet_is_left_to_through_the_exit_or_not_at_all_and_the_session_never_rides_it()
-> anyhow::Result<()> {
    let mut world = World::new("")?;
    world.apply("")?;
    // Without a rule: closed, though the machine has a way of its own, by which its agent talks.
    world.await_state("blocked")?;
    anyhow::ensure!(world.seen_as().is_err(), "out without an exit");
    world.ensure_lan()?;
    run(&mut connect(world.home.router(), SOMEBODY, PORT))?;

    world.apply(EXIT_RULE)?;
    world.await_state("leads")?;
    world.await_seen_as(&world.through_exit())?;
    world.ensure_lan()?;
    // Programs reach the cloud's address through the exit, were they let; the agent does not go there.
    anyhow::ensure!(world.riders()? == 0, "the agent rides its own tunnel");
    let _answered = run(&mut connect(world.client.host(), CLOUD, CLOUD_PORT));
    anyhow::ensure!(
        world.riders()? > 0,
        "a program does not go through the exit"
    );

    // Others remove what they do not know.
    let flush = ["rule", "del", "priority", "23402", "table", "8429"];
    run(world.client.host().command("ip").args(flush))?;
    eventually("the rule is made again", SOON, || {
        let rules = world.ours()?;
        anyhow::ensure!(rules.matches("lookup 8429").count() >= 3, "{rules}");
        Ok(())
    })?;
    world.await_seen_as(&world.through_exit())?;

    // The exit is lost: closed, and the session stays.
    world.apply("")?;
    world.await_state("blocked")?;
    anyhow::ensure!(world.seen_as().is_err(), "out without the exit");
    world.ensure_lan()?;
    world.apply(EXIT_RULE)?;
    world.await_seen_as(&world.through_exit())?;

    let riders = world.riders()?;

    // A crash opens nothing; the next start takes over, and leaves nothing when it ends.
    world.client.kill()?;
    anyhow::ensure!(world.seen_as().is_err(), "a crash opens the internet");
    world.ensure_lan()?;
    world.client.start()?;
    world.client.await_ready()?;
    world.await_state("leads")?;
    world.await_seen_as(&world.through_exit())?;
    anyhow::ensure!(world.riders()? == riders, "the agent rides its own tunnel");
    world.client.stop()?;
    let left = world.ours()?;
    anyhow::ensure!(left.trim().is_empty(), "left behind: {left}");
    world.await_seen_as(&world.home.public())?;
    Ok(())
}

#[test]
fn where_the_operator_says_so_a_machine_leaves_by_itself_while_its_exit_is_not_bound()
-> anyhow::Result<()> {
    let world = World::new("exit_use = \"prefer\"")?;
    world.apply("")?;
    world.await_state("direct")?;
    world.await_seen_as(&world.home.public())?;
    world.apply(EXIT_RULE)?;
    world.await_state("leads")?;
    world.await_seen_as(&world.through_exit())?;
    anyhow::ensure!(world.riders()? == 0, "the agent rides its own tunnel");
    world.apply("")?;
    world.await_state("direct")?;
    world.await_seen_as(&world.home.public())?;
    Ok(())
}
