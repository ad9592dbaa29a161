//! Content from a node nearby, where the cloud's cannot be had: through the tunnel, where the policy opens it.

use std::time::Duration;

use anyhow::Context as _;
use edgeward_tests::agent::Node;
use edgeward_tests::apps::Volume;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::run;

use super::{APP, Plant, SOON, apps, await_note, collector, note, told};
use crate::traffic::overlay;

const PORT: u16 = 7445;
/// How long is watched that nothing comes.
const WATCHED: Duration = Duration::from_secs(6);
const MIRROR: &str = "[service.mirror]\non = \"machines\"\n\n\
    \x20 [service.mirror.interface.content]\n  net = \"mesh\"\n  l4  = \"tcp/7445\"\n";
const RULE: &str = "\n[[rule]]\nid = \"gateways-mirror\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\n\
    to = [\"mirror/content\"]\ndo = [\"connect\"]\n";

/// Both groups have the collector.
fn policy(more: &str) -> String {
    let group = |name: &str| {
        format!(
            "[apps.{name}]\nallow = [{{ publisher = \"acme\" }}]\n\
             install = [{{ publisher = \"acme\", name = \"collector\", version = \"latest\", state = \"running\" }}]\n\n"
        )
    };
    format!("{}{}{MIRROR}{more}", group("gateways"), group("machines"))
}

/// Bytes of content that a node gave to others.
fn mirrored(node: &Node) -> anyhow::Result<u64> {
    let mut curl = node.host().command("curl");
    let text = run(curl.args(["-sSf", "--max-time", "5", "http://127.0.0.1:9464/metrics"]))?;
    let counted = text
        .lines()
        .filter(|line| {
            line.starts_with("edgeward_apps_mirrored_bytes_total") && line.contains("chunk")
        })
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    Ok(counted.sum())
}

#[test]
fn a_node_gets_from_its_neighbour_what_the_cloud_cannot_give_where_the_policy_lets_it()
-> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    let noise: Vec<u8> = (0..2_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    plant.publish(
        APP,
        "1.0",
        &collector("nearby")?.with_file("data/noise", &noise),
    )?;
    plant.apply(&policy(""))?;
    let mut mirror = plant.lab.node("b")?;
    mirror.ready_for_apps(Volume::Memory(256), &format!("mirror = {PORT}\n"))?;
    let mut mirror = plant.lab.enrolled(mirror, "machine")?;
    await_note(&mut mirror, "nearby")?;

    // From here on the cloud has the metadata, and none of the content.
    let shelf = plant.lab.cloud.folder().join("data/apps");
    for part in ["chunks", "manifests"] {
        let folder = shelf.join(part);
        std::fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    }
    let mut node = plant.lab.node("a")?;
    let neighbour = format!("neighbours = [\"[{}]:{PORT}\"]\n", overlay(&mirror)?);
    node.ready_for_apps(Volume::Memory(256), &neighbour)?;
    let mut node = plant.lab.enrolled(node, "gateway")?;
    eventually(
        "the node says that nobody gives it the content",
        SOON,
        || {
            let said = node.status()?["apps"]["apps"][APP].clone();
            anyhow::ensure!(said["code"] == "apps-unreachable", "{said:#}");
            Ok(())
        },
    )?;
    std::thread::sleep(WATCHED);
    assert!(
        note(&mut node).is_err(),
        "the policy lets nobody to the mirror"
    );
    assert_eq!(mirrored(&mirror)?, 0);

    plant.apply(&policy(RULE))?;
    await_note(&mut node, "nearby")?;
    let given = mirrored(&mirror)?;
    assert!(given >= noise.len() as u64, "{given} bytes came from there");
    let verified = apps(&node, &["verify"])?;
    assert!(verified.status.success(), "{}", told(&verified));
    Ok(())
}
