use edgeward_identity::SoftwareKey;

use super::*;
use crate::record::{BootOpened, Salt};

const TIME: Timestamp = Timestamp::from_secs(1_795_000_000);

/// A boot's journal with turns, and the keys that existed: the boot key first.
struct Kept {
    chain: Chain,
    keys: Vec<SoftwareKey>,
    records: Vec<SealedRecord>,
}

impl Kept {
    fn begun() -> Self {
        let node: SpiffeId = "spiffe://plant.example/node/gw-3".parse().unwrap();
        let mut kept = Self {
            chain: Chain::new(node.clone(), BootId::from_bytes([1; 16])),
            keys: vec![SoftwareKey::generate().unwrap()],
            records: Vec::new(),
        };
        let opened = BootOpened {
            previous: None,
            reset_count: None,
            restart_count: None,
        };
        let event = Event::new(TIME, node, EventKind::JournalOpened);
        let record = kept.chain.seal_opening(opened, event, salt(0)).unwrap();
        kept.push(record);
        kept
    }

    fn push(&mut self, record: SealedRecord) {
        self.chain.advance(&record).unwrap();
        self.records.push(record);
    }

    fn write(&mut self, count: usize) {
        for n in 0..count {
            let event = Event::new(TIME, self.chain.node().clone(), EventKind::FlowDenied);
            let record = self.chain.seal(event.detail("n", n), salt(1)).unwrap();
            self.push(record);
        }
    }

    fn turn(&mut self) {
        let next = SoftwareKey::generate().unwrap();
        let number = u32::try_from(self.keys.len() - 1).unwrap();
        let signer = self.keys.last().unwrap();
        let event = KeyTurn::event(&self.chain, signer, (number, next.public_key()), TIME).unwrap();
        let record = self.chain.seal(event, salt(2)).unwrap();
        self.push(record);
        self.keys.push(next);
    }

    fn root(&self) -> PublicKey {
        *self.keys[0].public_key()
    }
}

fn salt(n: u8) -> Salt {
    Salt::from_bytes([n; 16])
}

/// What a third party makes of records: the newest key, or why not.
fn judge(
    records: &[SealedRecord],
    root: Option<&PublicKey>,
) -> Result<Option<KeyChain>, TurnError> {
    let mut known: Option<KeyChain> = None;
    for record in records {
        if record.event().kind == EventKind::JournalSealed {
            known = Some(KeyChain::advance(known.as_ref(), record, root)?);
        }
    }
    Ok(known)
}

#[test]
fn a_turn_by_another_key_than_the_one_in_use_does_not_hold() {
    let mut kept = Kept::begun();
    let other = SoftwareKey::generate().unwrap();
    kept.turn();
    assert_eq!(
        judge(&kept.records, Some(other.public_key())),
        Err(TurnError::Signature)
    );
    kept.write(2);
    // Whoever has the boot key still has no say: it signs the first turn only.
    let root = kept.root();
    let event = KeyTurn::event(&kept.chain, &kept.keys[0], (1, other.public_key()), TIME).unwrap();
    let record = kept.chain.seal(event, salt(3)).unwrap();
    let known = judge(&kept.records, Some(&root)).unwrap();
    assert_eq!(
        KeyChain::advance(known.as_ref(), &record, Some(&root)),
        Err(TurnError::Signature)
    );
}

#[test]
fn the_newest_key_cannot_change_what_is_older_than_it() {
    let mut kept = Kept::begun();
    kept.turn();
    kept.write(3);
    kept.turn();
    kept.write(3);
    let root = kept.root();
    assert_eq!(
        judge(&kept.records, Some(&root)).unwrap().unwrap().number,
        1
    );
    // An intruder who holds the last key rewrites a record before its turn, and chains everything anew.
    let mut forged = Kept {
        chain: Chain::starting_at(&kept.records[1]),
        keys: Vec::new(),
        records: kept.records[..2].to_vec(),
    };
    forged.write(2);
    let turn = kept.records[5].event().clone();
    let event = Event::new(TIME, forged.chain.node().clone(), EventKind::FlowAllowed);
    let lie = forged.chain.seal(event, salt(4)).unwrap();
    forged.push(lie);
    // The old turn, at its old place: its signature is over another head.
    let replayed = forged.chain.seal(turn, salt(2)).unwrap();
    forged.push(replayed);
    assert_eq!(
        judge(&forged.records, Some(&root)),
        Err(TurnError::Signature)
    );
    // A turn of the intruder's own: the key in use was key 0, and that is gone.
    let mut own = Kept {
        chain: Chain::starting_at(&forged.records[4]),
        keys: kept.keys.split_off(2),
        records: forged.records[..5].to_vec(),
    };
    let next = SoftwareKey::generate().unwrap();
    let event = KeyTurn::event(&own.chain, &own.keys[0], (1, next.public_key()), TIME).unwrap();
    let record = own.chain.seal(event, salt(5)).unwrap();
    own.push(record);
    assert_eq!(judge(&own.records, Some(&root)), Err(TurnError::Signature));
}

#[test]
fn a_turn_that_is_left_out_repeated_or_missing_is_noticed() {
    let mut kept = Kept::begun();
    kept.turn();
    kept.write(1);
    kept.turn();
    let (first, second) = (&kept.records[1], &kept.records[3]);
    let root = kept.root();
    assert_eq!(
        KeyChain::advance(None, second, Some(&root)),
        Err(TurnError::Number {
            expected: 0,
            found: 1
        })
    );
    let known = KeyChain::advance(None, first, Some(&root)).unwrap();
    assert_eq!(
        KeyChain::advance(Some(&known), first, Some(&root)),
        Err(TurnError::Number {
            expected: 1,
            found: 0
        })
    );
    assert!(!known.is_overdue(known.seq + MAX_RECORDS_A_KEY));
    assert!(known.is_overdue(known.seq + MAX_RECORDS_A_KEY + 1));
}

#[test]
fn what_is_no_turn_is_refused() {
    let mut kept = Kept::begun();
    kept.turn();
    let good = kept.records[1].event().clone();
    let with = |key: &str, value: &str| good.clone().detail(key, value);
    let point = good.detail.get(KEY).unwrap().to_owned();
    for bad in [
        kept.records[0].event().clone(),
        with(NUMBER, "-1"),
        with(NUMBER, "4294967296"),
        with(KEY, "zz"),
        with(KEY, point.get(2..).unwrap()),
        with(SIGNATURE, "0"),
        Event::new(TIME, kept.chain.node().clone(), EventKind::JournalSealed),
    ] {
        assert_eq!(KeyTurn::parse(&bad), Err(TurnError::Malformed), "{bad:?}");
    }
    let record = kept.chain.seal(with(SIGNATURE, "00"), salt(6)).unwrap();
    let known = judge(&kept.records[..1], None).unwrap();
    assert_eq!(
        KeyChain::advance(known.as_ref(), &record, Some(&kept.root())),
        Err(TurnError::Signature)
    );
}

#[test]
fn a_boot_whose_root_is_not_known_is_checked_from_its_first_turn_on() {
    let mut kept = Kept::begun();
    for _ in 0..3 {
        kept.turn();
        kept.write(2);
    }
    let proven = judge(&kept.records, None).unwrap().unwrap();
    assert_eq!((proven.number, proven.seq), (2, 7));
    assert_eq!(proven.key, *kept.keys[3].public_key());
    assert_eq!(judge(&kept.records, Some(&kept.root())), Ok(Some(proven)));
}
