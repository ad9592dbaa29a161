//! What a cloud takes from publishers and operators.

use anyhow::Context as _;
use edgeward_tests::plant::{APP, Plant, collector};
use edgeward_tests::publisher::Holders;

use super::told;

#[test]
fn too_few_signatures_and_strangers_keys_publish_nothing() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("good")?)?;

    // One of two.
    plant
        .repository
        .release(APP, "1.1", &collector("lonely")?)?;
    plant.repository.sign_releases_by("acme", 1)?;
    let refused = plant.try_upload()?;
    assert!(!refused.status.success(), "{}", told(&refused));
    // Nobody that the image role knows.
    let holders = std::mem::replace(&mut plant.repository.offline, Holders::new(2, 3)?);
    plant.repository.sign_root(&[])?;
    let root = plant.repository.newest("root")?;
    let submitted =
        plant
            .lab
            .cloud
            .try_edgeward(&["publisher", "submit", root.to_str().context("a path")?])?;
    assert!(!submitted.status.success(), "{}", told(&submitted));
    plant.repository.offline = holders;

    let listed = plant.lab.cloud.edgeward(&["app", "list"])?;
    assert!(
        listed.contains("1.0") && !listed.contains("1.1"),
        "{listed}"
    );
    Ok(())
}
