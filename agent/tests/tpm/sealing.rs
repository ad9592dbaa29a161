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

    let text = serde_json::to_string(&blob).unwrap();
    let at = text.rfind("\"}").unwrap() - 1;
    let flipped = if &text[at..=at] == "0" { "1" } else { "0" };
    let altered = format!("{}{flipped}{}", &text[..at], &text[at + 1..]);
    let altered: SealedBlob = serde_json::from_str(&altered).unwrap();
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
