//! Snapshot and timestamp: what the cloud signs itself, by a key that the offline root names. Pure: told the time and
//! what is in force. Whoever has this key can hold releases back for as long as a timestamp is good, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_apps::author::{Envelope, Pin, RoleKey, Unauthored};
use edgeward_identity::{SignError, Signer, Timestamp};

/// A snapshot is good for so many times as long as a timestamp: it changes with the releases, not with the hours.
const SNAPSHOT_TIMES: u32 = 7;

/// One signed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub version: u64,
    pub expires: Timestamp,
    pub bytes: Vec<u8>,
}

/// What stands before the next signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    pub snapshot: Option<Signed>,
    pub timestamp: Option<Signed>,
}

/// A file in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    pub pin: Pin,
    pub expires: Timestamp,
}

/// What comes after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// `None`: the one in force goes on.
    pub snapshot: Option<Made>,
    pub timestamp: Made,
}

/// Ours: the key, or its token.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    #[error(transparent)]
    Author(#[from] Unauthored),
    #[error("the apps-online key does not sign: {0}")]
    Sign(#[from] SignError),
}

/// Whether a new timestamp is due: half of the life of the one in force is over.
pub fn is_due(before: &Before, ttl: Duration, now: Timestamp) -> bool {
    before
        .timestamp
        .is_none_or(|timestamp| now.plus(ttl / 2) >= timestamp.expires)
}

/// Signs what pins these files. A snapshot only where it says something new or has not long to go.
pub fn sign(
    key: &dyn Signer,
    roles: &BTreeMap<String, Pin>,
    changed: bool,
    before: &Before,
    ttl: Duration,
    now: Timestamp,
) -> Result<After, Unsigned> {
    let kept = before
        .snapshot
        .filter(|snapshot| !changed && now.plus(ttl.saturating_mul(2)) < snapshot.expires);
    let (snapshot, pin) = match kept {
        Some(kept) => (None, kept.pin),
        None => {
            let version = next(before.snapshot, now);
            let expires = now.plus(ttl.saturating_mul(SNAPSHOT_TIMES));
            let made = signed(key, Envelope::snapshot(version, expires, roles)?)?;
            let pin = Pin::of(version, &made);
            let snapshot = Made {
                version,
                expires,
                bytes: made,
            };
            (Some(snapshot), pin)
        }
    };
    let version = next(before.timestamp, now);
    let expires = now.plus(ttl);
    let bytes = signed(key, Envelope::timestamp(version, expires, &pin)?)?;
    Ok(After {
        snapshot,
        timestamp: Made {
            version,
            expires,
            bytes,
        },
    })
}

/// One more than before, and never less than the seconds since 1970: a database that was put back from a backup goes
/// on above what nodes have seen.
fn next(before: Option<Signed>, now: Timestamp) -> u64 {
    let last = before.map_or(0, |before| before.pin.version);
    last.saturating_add(1).max(now.secs())
}

fn signed(key: &dyn Signer, mut envelope: Envelope) -> Result<Vec<u8>, Unsigned> {
    let signature = key.sign(&envelope.to_sign()?)?;
    envelope.add(&RoleKey::p256(key.public_key())?, &signature)?;
    Ok(envelope.to_bytes())
}

#[cfg(test)]
mod tests {
    use edgeward_identity::SoftwareKey;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn roles() -> BTreeMap<String, Pin> {
        BTreeMap::from([("targets".to_owned(), Pin::of(1, b"targets"))])
    }

    fn before(after: &After, last: &Before) -> Before {
        let of = |made: &Made| Signed {
            pin: Pin::of(made.version, &made.bytes),
            expires: made.expires,
        };
        Before {
            snapshot: after.snapshot.as_ref().map(of).or(last.snapshot),
            timestamp: Some(of(&after.timestamp)),
        }
    }

    #[test]
    fn a_timestamp_is_due_at_half_of_its_life() {
        let key = SoftwareKey::generate().unwrap();
        let none = Before::default();
        assert!(is_due(&none, DAY, NOW));
        let after = sign(&key, &roles(), true, &none, DAY, NOW).unwrap();
        let first = before(&after, &none);
        assert!(!is_due(&first, DAY, NOW.plus(DAY / 3)));
        assert!(is_due(&first, DAY, NOW.plus(DAY / 2)));
    }

    #[test]
    fn versions_rise_even_above_a_database_that_was_put_back() {
        let key = SoftwareKey::generate().unwrap();
        let none = Before::default();
        let first = sign(&key, &roles(), true, &none, DAY, NOW).unwrap();
        let stood = before(&first, &none);
        let same = sign(&key, &roles(), true, &stood, DAY, NOW).unwrap();
        assert_eq!(same.timestamp.version, first.timestamp.version + 1);
        assert_eq!(
            same.snapshot.unwrap().version,
            first.snapshot.unwrap().version + 1
        );
        let after_backup = sign(&key, &roles(), true, &stood, DAY, NOW.plus(DAY)).unwrap();
        assert!(after_backup.timestamp.version > same.timestamp.version);
    }

    #[test]
    fn an_unchanged_snapshot_stays_until_it_has_not_long_to_go() {
        let key = SoftwareKey::generate().unwrap();
        let none = Before::default();
        let first = sign(&key, &roles(), true, &none, DAY, NOW).unwrap();
        let stood = before(&first, &none);
        let later = sign(&key, &roles(), false, &stood, DAY, NOW.plus(DAY)).unwrap();
        assert_eq!(later.snapshot, None);
        let snapshot = first.snapshot.unwrap();
        let text = String::from_utf8(later.timestamp.bytes).unwrap();
        assert!(text.contains(&edgeward_apps::Digest::of(&snapshot.bytes).to_string()));
        let due = sign(&key, &roles(), false, &stood, DAY, NOW.plus(DAY * 5)).unwrap();
        assert!(due.snapshot.is_some());
    }
}
