use edgeward_agent::tpm::activate::activate;
use edgeward_agent::tpm::ek::endorsement;
use edgeward_agent::tpm::health::health;
use edgeward_agent::tpm::keys::ak_public;
use edgeward_agent::tpm::{EkChoice, quote};
use edgeward_evidence::make_credential::{draw_secret, make_credential};
use edgeward_evidence::tpm::{Attest, PcrBank, Public};
use ring::rand::SystemRandom;

use super::swtpm::{Swtpm, installed};
use super::{call, quoted, request};

#[test]
fn a_power_cut_raises_the_reset_count_and_the_next_quote_follows_at_once() {
    if !installed() {
        return;
    }
    let mut swtpm = Swtpm::start();
    let tpm = swtpm.open();
    let before = quoted(&tpm);
    swtpm.power_cut();
    swtpm.power_on();
    // The same thread goes on: it opens the link anew by itself.
    let after = quoted(&tpm);
    assert_eq!(after.reset_count, before.reset_count + 1);
    assert!(!Attest::parse(&after.attest).unwrap().clock.safe);
    assert_eq!(after.pcrs, before.pcrs);
}

#[test]
fn five_power_cuts_after_using_the_ek_lock_nothing() {
    if !installed() {
        return;
    }
    let mut swtpm = Swtpm::start();
    for choice in [
        EkChoice::P384,
        EkChoice::Rsa2048,
        EkChoice::P256,
        EkChoice::P384,
        EkChoice::Rsa2048,
    ] {
        let tpm = swtpm.open();
        let (ek, ak) = call(&tpm, move |device| {
            Ok((endorsement(device, choice)?, ak_public(device)?))
        })
        .unwrap();
        let secret = draw_secret(&SystemRandom::new()).unwrap();
        let name = Public::parse(&ak).unwrap().name();
        let public = Public::parse(&ek.public).unwrap();
        let credential = make_credential(&public, &name, &secret, &SystemRandom::new()).unwrap();
        let opened = call(&tpm, move |device| {
            activate(
                device,
                ek.kind,
                &credential.id_object,
                &credential.encrypted_secret,
            )
        })
        .unwrap();
        assert_eq!(opened.expose().as_slice(), secret.expose().as_slice());
        quoted(&tpm);
        drop(tpm);
        swtpm.power_cut();
        swtpm.power_on();
        let health = call(&swtpm.open(), health).unwrap();
        assert_eq!(health.lockout_counter, 0);
    }
}

#[test]
fn what_an_aborted_process_left_behind_is_flushed() {
    if !installed() {
        return;
    }
    let swtpm = Swtpm::start();
    let tcti = swtpm.place().tcti;
    // tpm2-tools leave their object in the TPM; three fill it.
    for _ in 0..3 {
        let made = std::process::Command::new("tpm2_createprimary")
            .args(["-Q", "-C", "o", "-G", "ecc"])
            .env("TPM2TOOLS_TCTI", tcti.as_ref())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let tpm = swtpm.open();
    call(&tpm, ak_public).unwrap();
    call(&tpm, |device| {
        quote::quote(device, &request(PcrBank::Sha256, 0..1))
    })
    .unwrap();
}
