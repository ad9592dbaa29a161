//! The cloud's own keys are turned over, and nodes follow: one that is there, and one that was away.

use edgeward_tests::eventually::eventually;

use super::{APP, Plant, SOON, await_note, collector};

#[test]
fn nodes_follow_when_the_clouds_keys_are_turned_over_and_the_old_ones_are_gone()
-> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.publish(APP, "1.0", &collector("first")?)?;
    plant.apply_collector()?;
    let mut there = plant.member("a", "gateway")?;
    let mut away = plant.member("c", "gateway")?;
    await_note(&mut there, "first")?;
    await_note(&mut away, "first")?;
    away.stop()?;

    let keys = plant.lab.cloud.folder().join("data/keys");
    let online = keys.join("apps-online.key");
    assert!(online.exists());
    plant.turn_online_key()?;
    assert!(
        !online.exists(),
        "the key before stays where a thief finds it"
    );
    plant.publish(APP, "1.1", &collector("second")?)?;
    await_note(&mut there, "second")?;

    let word = there.status()?["apps"]["director"].as_u64();
    let director = keys.join("director.key");
    assert!(director.exists());
    plant.lab.cloud.edgeward(&["ca", "rotate", "director"])?;
    assert!(!director.exists());
    plant
        .lab
        .cloud
        .await_event(&["--type", "authority.activated"])?;
    // The same orders under the new key, at once: those before hold no longer.
    eventually("the node has a word of the new key", SOON, || {
        let now = there.status()?["apps"]["director"].as_u64();
        anyhow::ensure!(now > word, "{now:?} after {word:?}");
        Ok(())
    })?;
    plant.publish(APP, "1.2", &collector("third")?)?;
    await_note(&mut there, "third")?;

    away.start()?;
    await_note(&mut away, "third")?;
    // Without the cloud it knows the word again after a start: the key set that it stored names the new key.
    let word = there.status()?["apps"]["director"].clone();
    plant.lab.cloud.stop()?;
    there.stop()?;
    there.start()?;
    eventually("the stored word holds", SOON, || {
        let now = there.status()?["apps"]["director"].clone();
        anyhow::ensure!(now == word, "{now} in the place of {word}");
        Ok(())
    })
}
