use edgeward_agent::tpm::kept::{KeptKey, make, sign};
use ring::digest::{SHA256, digest};

use super::call;
use super::swtpm::{Swtpm, installed};

fn hash(message: &[u8]) -> [u8; 32] {
    digest(&SHA256, message).as_ref().try_into().unwrap()
}

#[test]
fn a_key_in_a_file_signs_in_its_own_tpm_and_in_no_other() {
    if !installed() {
        return;
    }
    let (mut own, other) = (Swtpm::start(), Swtpm::start());
    let key = call(&own.open(), make).unwrap();
    let text = serde_json::to_string(&key).unwrap();
    let read = || serde_json::from_str::<KeptKey>(&text).unwrap();
    let refused = read();
    assert!(
        call(&other.open(), move |device| sign(
            device,
            &refused,
            &hash(b"x")
        ))
        .is_err()
    );
    // One changed digit of the wrapped half.
    let at = text.find("private").unwrap() + 60;
    let mut changed = text.clone().into_bytes();
    changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
    let changed: KeptKey = serde_json::from_slice(&changed).unwrap();
    assert!(
        call(&own.open(), move |device| sign(
            device,
            &changed,
            &hash(b"x")
        ))
        .is_err()
    );
    own.power_cut();
    own.power_on();
    let tpm = own.open();
    for round in 0u8..20 {
        let (key, message) = (read(), vec![round; 5]);
        let hash = hash(&message);
        let signature = call(&tpm, move |device| sign(device, &key, &hash)).unwrap();
        read()
            .public_key()
            .unwrap()
            .verify(&message, &signature)
            .unwrap();
    }
    let second = call(&tpm, make).unwrap();
    assert_ne!(second.public_key().unwrap(), read().public_key().unwrap());
}
