//! Slices as deltas: what the cloud sends, against a slice that is held.

use edgeward_evidence::Digest;
use edgeward_wire::slice_delta::{self, Base};
use edgeward_wire::v1::SliceDelta;
use prost::Message;

/// What is held: as a slice, much of the same over and over.
fn held() -> Vec<u8> {
    let rows: Vec<String> = (0..40)
        .map(|n| format!("{{\"rule\":\"line-{n}\",\"effect\":\"allow\",\"window\":null}}"))
        .collect();
    rows.join(",").into_bytes()
}

/// A delta that comes is applied or refused; and whatever the bytes are as a slice, a delta to them gives them.
pub fn run(bytes: &[u8]) {
    let held = held();
    if let Ok(delta) = SliceDelta::decode(bytes) {
        if let Ok(made) = slice_delta::apply(&delta, &held) {
            assert_eq!(Digest::of(&made).as_bytes().as_slice(), delta.target);
        }
        // So that what follows the check of the base is reached too.
        let base = Digest::of(&held).as_bytes().to_vec();
        let _ = slice_delta::apply(&SliceDelta { base, ..delta }, &held);
    }
    if let Some(delta) = slice_delta::make(base(&held), bytes) {
        assert_eq!(slice_delta::apply(&delta, &held).as_deref(), Ok(bytes));
    }
}

fn base(held: &[u8]) -> Base<'_> {
    Base {
        digest: *Digest::of(held).as_bytes(),
        at: 0,
        bytes: held,
    }
}

/// A delta, and what it makes.
pub fn seeds() -> Vec<Vec<u8>> {
    let held = held();
    let mut target = held.clone();
    target.splice(100..120, *b"line-new");
    let delta = slice_delta::make(base(&held), &target).expect("worth a delta");
    vec![delta.encode_to_vec(), target]
}
