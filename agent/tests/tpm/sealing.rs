use edgeward_agent::tpm::health::health;
use edgeward_agent::tpm::nv::{epoch, raise_epoch};
use edgeward_agent::tpm::seal::{SealedBlob, seal, unseal};

use super::call;
use super::swtpm::{Swtpm, installed};

#[test]
fn a_sealed_secret_comes_back_on_its_tpm_only_and_unaltered_only() {
    if !installed() {
        return;
    }
    let mut swtpm = Swtpm::start();
    let tpm = swtpm.open();
    let blob = call(&tpm, |device| seal(device, &[9; 32])).unwrap();
    drop(tpm);
    swtpm.power_cut();
    swtpm.power_on();
    let kept = blob.clone();
    let secret = call(&swtpm.open(), move |device| unseal(device, &kept)).unwrap();
    assert_eq!(secret.expose().as_slice(), [9; 32]);

    let other = Swtpm::start();
    let stolen = blob.clone();
    assert!(call(&other.open(), move |device| unseal(device, &stolen)).is_err());

    let mut altered: serde_json::Value = serde_json::to_value(&blob).unwrap();
    let private = altered["private"].as_str().unwrap().to_owned();
    let flipped = if private.ends_with('0') { "1" } else { "0" };
    altered["private"] = format!("{}{flipped}", private.get(..private.len() - 1).unwrap()).into();
    let altered: SealedBlob = serde_json::from_value(altered).unwrap();
    assert!(call(&swtpm.open(), move |device| unseal(device, &altered)).is_err());
}

#[test]
fn the_epoch_only_rises_and_survives_power_cuts() {
    if !installed() {
        return;
    }
    let mut swtpm = Swtpm::start();
    let tpm = swtpm.open();
    assert_eq!(call(&tpm, epoch).unwrap(), None);
    let first = call(&tpm, raise_epoch).unwrap();
    let second = call(&tpm, raise_epoch).unwrap();
    assert_eq!(second, first + 1);
    drop(tpm);
    swtpm.power_cut();
    swtpm.power_on();
    assert_eq!(call(&swtpm.open(), epoch).unwrap(), Some(second));
}

#[test]
fn what_was_sealed_opens_after_other_firmware_booted_and_while_the_tpm_is_locked_out() {
    if !installed() {
        return;
    }
    let mut swtpm = Swtpm::start();
    let blob = call(&swtpm.open(), |device| seal(device, &[9; 32])).unwrap();
    swtpm.power_cut();
    swtpm.power_on();
    let digest = "5a".repeat(32);
    for pcr in 0..=15 {
        swtpm.tool("tpm2_pcrextend", &[&format!("{pcr}:sha256={digest}")]);
    }
    let kept = blob.clone();
    let secret = call(&swtpm.open(), move |device| unseal(device, &kept)).unwrap();
    assert_eq!(secret.expose().as_slice(), [9; 32]);

    // Somebody guesses at a key that is protected against it.
    swtpm.lock_out();
    let locked = call(&swtpm.open(), health).unwrap();
    assert!(locked.lockout_counter >= locked.lockout_limit, "{locked:?}");
    let secret = call(&swtpm.open(), move |device| unseal(device, &blob)).unwrap();
    assert_eq!(secret.expose().as_slice(), [9; 32]);
    assert!(call(&swtpm.open(), |device| seal(device, &[8; 32])).is_ok());
}
