//! Ways between nodes whose networks stand in between: straight through routers that translate, through another node,
//! and at last through the cloud.

use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::impair::Faults;
use edgeward_tests::nat::Nat;
use edgeward_tests::process::run_with_input;

use crate::traffic::{Connection, await_reach, reaches, serve, tail};

const STATUS: u16 = 8080;
const PORT: u16 = 51820;
/// How long an open connection may need after that: after half a minute of silence TCP asks again only in the 51st second.
const TCP_DEADLINE: Duration = Duration::from_secs(90);
/// How long a way may take to be found, or to be given up for another one.
const PATH_DEADLINE: Duration = Duration::from_secs(45);

/// The quickstart's policy, and hubs that relay.
const HUBS: &str = r#"
schema = "edgeward-policy/1"
owner  = "platform"
scope  = { site = ["quickstart"] }

[group.hubs]
match   = { site = ["quickstart"], role = ["hub"] }
profile = "simulated"

[role]
relay = ["hubs"]
"#;

/// Loses every datagram between two nodes, and nothing else; `false` ends it.
fn part(a: &Node, b: &Node, parted: bool) -> anyhow::Result<()> {
    for (at, other) in [(a, b), (b, a)] {
        let mut text = "table inet parted\ndelete table inet parted\n".to_owned();
        if parted {
            let v4 = other.host().ipv4();
            let number = v4.rsplit('.').next().context("an octet")?;
            text += &format!(
                "table inet parted {{ chain in {{ type filter hook input priority -300;\n\
                 ip saddr {v4} drop\nip6 saddr 2001:db8::{number} drop\n}}\n}}\n"
            );
        }
        let mut nft = at.host().command("nft");
        run_with_input(nft.args(["-f", "-"]), &text)?;
    }
    Ok(())
}

/// By what a node reaches a peer now, and where.
fn way(node: &Node, peer: &Node) -> anyhow::Result<(String, String)> {
    let status = node.status()?;
    let paths = status["reach"]["paths"].as_array().context("no paths")?;
    let id = format!("spiffe://plant.example/node/{}", peer.name());
    let used = paths
        .iter()
        .find(|path| path["peer"] == id && path["in_use"] == true)
        .with_context(|| format!("no path to {id}: {}", status["reach"]))?;
    let text = |key: &str| used[key].as_str().unwrap_or("").to_owned();
    let at = match text("kind").as_str() {
        "relay" => text("through"),
        _ => text("endpoint"),
    };
    Ok((text("kind"), at))
}

fn await_way(node: &Node, peer: &Node, kind: &str) -> anyhow::Result<String> {
    let what = format!("{} reaches {} by {kind}", node.name(), peer.name());
    eventually(&what, PATH_DEADLINE, || {
        let (found, at) = way(node, peer)?;
        anyhow::ensure!(
            found == kind,
            "it is {found} {at}\n{}",
            tail(&node.log_text())
        );
        Ok(at)
    })
}

fn logs(a: &Node, b: &Node) -> String {
    format!(
        "moved\n--- a:\n{}\n--- b:\n{}",
        tail(&a.log_text()),
        tail(&b.log_text())
    )
}

/// Whether the tunnel to a peer is open.
fn is_open(node: &Node, peer: &Node) -> anyhow::Result<bool> {
    let status = node.status()?;
    let id = format!("spiffe://plant.example/node/{}", peer.name());
    let binds = status["binds"].as_array().context("no binds")?;
    let bind = binds.iter().find(|bind| bind["peer"] == id);
    Ok(bind.is_some_and(|bind| bind["open"] == true))
}

#[test]
fn nodes_behind_port_restricted_routers_meet_directly_and_keep_their_bind_when_a_router_moves_them()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut left = lab.site("left", Nat::PortRestricted)?;
    let mut right = lab.site("right", Nat::PortRestricted)?;
    let a = lab.member_at(&mut left, "a", "gateway")?;
    let b = lab.member_at(&mut right, "b", "machine")?;
    let at = await_way(&a, &b, "direct")?;
    assert!(at.starts_with(&format!("{}:", right.public())), "{at}");
    let at = await_way(&b, &a, "direct")?;
    assert!(at.starts_with(&format!("{}:", left.public())), "{at}");
    let mut connection = Connection::open(&a, &b, STATUS)?;
    connection.goes_on(PATH_DEADLINE)?;
    assert!(is_open(&a, &b)?);
    let port = left.rebind(a.host(), PORT)?;
    connection
        .goes_on(TCP_DEADLINE)
        .with_context(|| logs(&a, &b))?;
    eventually("b sees a where the router put it", PATH_DEADLINE, || {
        assert!(is_open(&a, &b)? && is_open(&b, &a)?, "a bind was lost");
        let (kind, at) = way(&b, &a)?;
        let moved = format!("{}:{port}", left.public());
        anyhow::ensure!(kind == "direct" && at == moved, "{kind} {at}, not {moved}");
        Ok(())
    })?;
    let closed = lab.cloud.events(&["--type", "bind.closed"])?;
    anyhow::ensure!(closed.is_empty(), "a bind was closed: {closed:?}");
    Ok(())
}

#[test]
fn an_open_connection_outlives_the_loss_of_the_direct_way_and_its_return() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let a = lab.member("a", "gateway")?;
    let (b, mut cable) = lab.node_by_cable("b")?;
    // A bad line, too: nothing below may need a good one.
    cable.set(&Faults {
        delay_ms: 10,
        jitter_ms: 10,
        loss: 20,
        reorder: 50,
        duplicate: 20,
        ..Faults::default()
    })?;
    let b = lab.enrolled(b, "machine")?;
    await_way(&a, &b, "direct")?;
    let mut connection = Connection::open(&a, &b, STATUS)?;
    connection.goes_on(PATH_DEADLINE)?;
    part(&a, &b, true)?;
    await_way(&a, &b, "cloud")?;
    connection.goes_on(PATH_DEADLINE)?;
    part(&a, &b, false)?;
    await_way(&a, &b, "direct")?;
    connection.goes_on(PATH_DEADLINE)?;
    for kind in ["bind.closed", "cut.effected"] {
        let events = lab.cloud.events(&["--type", kind])?;
        anyhow::ensure!(events.is_empty(), "{kind}: {events:?}");
    }
    Ok(())
}

#[test]
fn nodes_behind_symmetric_routers_meet_through_a_node_that_relays_and_without_it_through_the_cloud()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    lab.policy_with("hubs.toml", HUBS)?;
    let hub = lab.member("hub", "hub")?;
    let mut left = lab.site("left", Nat::Symmetric)?;
    let mut right = lab.site("right", Nat::Symmetric)?;
    let a = lab.member_at(&mut left, "a", "gateway")?;
    let b = lab.member_at(&mut right, "b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    assert_eq!(
        await_way(&a, &b, "relay")?,
        "spiffe://plant.example/node/hub"
    );
    // Whoever carries opens nothing: nobody may reach the hub itself, or anybody from it.
    assert!(!reaches(&hub, &b, STATUS, 2)?);
    assert!(!reaches(&a, &hub, STATUS, 2)?);
    lab.network.link(hub.host(), false)?;
    await_way(&a, &b, "cloud")?;
    await_reach(&a, &b, STATUS)?;
    Ok(())
}

#[test]
fn nodes_whose_networks_pass_nothing_but_tls_meet_through_the_cloud() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut left = lab.site("left", Nat::TcpOnly(&[7443]))?;
    let a = lab.member_at(&mut left, "a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    await_way(&a, &b, "cloud")?;
    await_way(&b, &a, "cloud")?;
    // The cloud carries for them only as long as they may meet.
    lab.cloud
        .edgeward(&["node", "quarantine", "b", "--reason", "test"])?;
    eventually("nothing goes through any more", PATH_DEADLINE, || {
        anyhow::ensure!(!reaches(&a, &b, STATUS, 1)?, "it does");
        Ok(())
    })
}
