//! Ways between nodes whose networks stand in between: straight through routers that translate, through another node,
//! and at last through the cloud.

use std::time::Duration;

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::QUICKSTART_POLICY;
use edgeward_tests::nat::Nat;

use crate::traffic::{await_reach, reaches, serve, tail};

const STATUS: u16 = 8080;
const PORT: u16 = 51820;
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

fn with_hubs(lab: &Lab) -> anyhow::Result<()> {
    let folder = lab.folder().join("policy");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(QUICKSTART_POLICY)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "toml") {
            std::fs::copy(&path, folder.join(path.file_name().context("a name")?))?;
        }
    }
    std::fs::write(folder.join("hubs.toml"), HUBS)?;
    let folder = folder.to_str().context("a path")?;
    lab.cloud.edgeward(&["policy", "apply", folder])?;
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
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let at = await_way(&a, &b, "direct")?;
    assert!(at.starts_with(&format!("{}:", right.public())), "{at}");
    let at = await_way(&b, &a, "direct")?;
    assert!(at.starts_with(&format!("{}:", left.public())), "{at}");
    assert!(is_open(&a, &b)?);
    let port = left.rebind(a.host(), PORT)?;
    await_reach(&a, &b, STATUS)?;
    eventually("b sees a where the router put it", PATH_DEADLINE, || {
        assert!(is_open(&a, &b)? && is_open(&b, &a)?, "a bind was lost");
        reaches(&a, &b, STATUS, 2)?;
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
fn nodes_behind_symmetric_routers_meet_through_a_node_that_relays_and_without_it_through_the_cloud()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    with_hubs(&lab)?;
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
