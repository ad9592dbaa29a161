//! The target for records: known, of format 1, of a newer version, and turns of the journal's key.

use edgeward_audit::SealedRecord;
use edgeward_audit::record::{KeyChain, KeyTurn};

const SALT: &str = "\"salt\":\"07070707070707070707070707070707\",";
const POINT: &str = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

/// What is read is kept as it came, and a turn in it is read too.
pub fn record(bytes: &[u8]) {
    let Ok(sealed) = SealedRecord::parse(bytes) else {
        return;
    };
    assert_eq!(sealed.bytes(), bytes);
    if let Ok(turn) = KeyTurn::parse(sealed.event()) {
        drop(KeyChain::advance(None, &sealed, Some(&turn.key)));
    }
}

pub fn records() -> Vec<Vec<u8>> {
    let of = |salt: &str, event: &str| {
        let zeros = "0".repeat(64);
        format!(
            "{{{salt}\"node\":\"spiffe://plant.example/node/gw\",\"boot\":\"01010101010101010101010101010101\",\
             \"seq\":1,\"prev\":\"{zeros}\",\"event\":{event}}}"
        )
        .into_bytes()
    };
    let event = |kind: &str, detail: &str| {
        format!(
            "{{\"time\":1795000000000,\"actor\":\"cloud\",\"type\":\"{kind}\",\"verdict\":\"none\"{detail}}}"
        )
    };
    let turn = format!(
        ",\"detail\":{{\"key\":\"{POINT}\",\"number\":\"0\",\"signature\":\"3006020101020101\"}}"
    );
    let records = vec![
        of("", &event("flow.denied", "")),
        of(SALT, &event("flow.denied", "")),
        of(SALT, &event("flow.melted", ",\"weight\":[1,{}]")),
        of(SALT, &event("journal.sealed", &turn)),
    ];
    for record in &records {
        assert!(SealedRecord::parse(record).is_ok(), "a seed is no record");
    }
    records
}
