//! Kills, power cuts, boots and failing disks in any order, against a cloud that only stores what `accept` lets it.

use std::collections::BTreeMap;

use edgeward_identity::{PublicKey, Signer, SoftwareKey};

use super::*;
use crate::batch::{Accepted, Batch, JournalKey, JournalKeyStatement, accept};

#[derive(Clone, Debug)]
enum Step {
    Append(EventKind),
    Tick,
    /// The process dies: everything written stays.
    Kill,
    /// The power fails: of what was not flushed, so many bytes stay.
    PowerCut(usize),
    /// A batch is sent and stored, and the answer arrives or not.
    Send {
        acknowledged: bool,
    },
    Fail(usize),
    SyncFails,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop_oneof![
            Just(EventKind::FlowDenied), Just(EventKind::EnrolmentBegun), Just(EventKind::BindOpened),
            Just(EventKind::CutEffected),
        ].prop_map(Step::Append),
        1 => Just(Step::Tick),
        1 => Just(Step::Kill),
        1 => (0_usize..900).prop_map(Step::PowerCut),
        4 => any::<bool>().prop_map(|acknowledged| Step::Send { acknowledged }),
        1 => (0_usize..500).prop_map(Step::Fail),
        1 => Just(Step::SyncFails),
    ]
}

struct World {
    journal: Option<Journal<MemoryStore>>,
    boot: u8,
    keys: (SoftwareKey, JournalKeyStatement, JournalKey),
    /// What the cloud stores, by boot.
    stored: BTreeMap<BootId, Vec<SealedRecord>>,
    /// Which `must` events `append` promised.
    promised: Vec<usize>,
    count: usize,
}

impl World {
    fn new() -> Self {
        let svid = SoftwareKey::generate().unwrap();
        let journal_key = SoftwareKey::generate().unwrap();
        let public: PublicKey = *journal_key.public_key();
        let statement =
            JournalKeyStatement::sign(&svid, &node(), boot(1).id, &public, TIME).unwrap();
        let verified = statement.verify(&node(), svid.public_key(), TIME).unwrap();
        Self {
            journal: Some(fresh()),
            boot: 1,
            keys: (journal_key, statement, verified),
            stored: BTreeMap::new(),
            promised: Vec::new(),
            count: 0,
        }
    }

    fn journal(&mut self) -> &mut Journal<MemoryStore> {
        self.journal.as_mut().unwrap()
    }

    fn reopen(&mut self, change: impl FnOnce(&mut MemoryStore)) {
        let mut store = self.journal.take().unwrap().into_store();
        change(&mut store);
        let boot = self.boot;
        // A fault may hit the opening itself; the next attempt finds the disk well again.
        self.journal = Some(
            match Journal::open(
                store.clone(),
                &node(),
                &self::boot(boot),
                limits(),
                TIME,
                salts(),
            ) {
                Ok((journal, _)) => journal,
                Err(_) => open(store.without_faults(), boot).0,
            },
        );
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append(kind) => {
                self.count += 1;
                let count = self.count;
                let mut event = event(kind, count);
                for n in 0..8 {
                    // Long, so that segments are begun often.
                    event = event.detail(&format!("pad{n}"), "x".repeat(400));
                }
                match self.journal().append(event, at(count as u64)) {
                    Ok(Appended::Recorded(_)) if kind.class() == Class::Must => {
                        self.promised.push(count)
                    }
                    Ok(_) => {}
                    Err(_) => self.reopen(|_| ()),
                }
            }
            Step::Tick => {
                if self.journal().tick(at(u64::MAX / 2_000_000)).is_err() {
                    self.reopen(|_| ());
                }
            }
            Step::Kill => self.reopen(|_| ()),
            Step::PowerCut(keep) => {
                self.boot += 1;
                self.reopen(|store| store.power_cut(keep));
            }
            Step::Send { acknowledged } => self.send(acknowledged),
            Step::Fail(bytes) => self.journal().store.inject(Fault::AppendAfter(bytes)),
            Step::SyncFails => self.journal().store.inject(Fault::Sync),
        }
    }

    fn send(&mut self, acknowledged: bool) {
        let pending = match self.journal().pending(None) {
            Ok(Some(pending)) => pending,
            Ok(None) => return,
            Err(_) => return self.reopen(|_| ()),
        };
        let batch = Batch::sign(&self.keys.1, &self.keys.0, pending.records).unwrap();
        let batch = Batch::parse(&batch.to_bytes())
            .unwrap()
            .verify(&self.keys.2)
            .unwrap();
        let stored = self.stored.entry(batch.boot()).or_default();
        let head = stored.last().map(SealedRecord::head);
        let Accepted { new, head, .. } = accept(&batch, head, |seq| {
            stored.get(seq as usize).map(SealedRecord::hash)
        })
        .unwrap();
        stored.extend_from_slice(new);
        if acknowledged {
            self.journal()
                .acknowledge(pending.boot, head.seq + 1)
                .unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_promised_is_lost_and_nothing_is_doubled(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.reopen(|_| ());
        // Send until the cloud has everything.
        let mut from = None;
        while let Some(pending) = world.journal().pending(from).unwrap() {
            from = Some(pending.next());
            let batch = Batch::sign(&world.keys.1, &world.keys.0, pending.records).unwrap();
            let batch = batch.verify(&world.keys.2).unwrap();
            let stored = world.stored.entry(batch.boot()).or_default();
            let head = stored.last().map(SealedRecord::head);
            let accepted = accept(&batch, head, |seq| stored.get(seq as usize).map(SealedRecord::hash));
            let new = accepted.map_err(|error| TestCaseError::fail(error.to_string()))?.new;
            stored.extend_from_slice(new);
        }
        let mut seen: Vec<usize> = Vec::new();
        for records in world.stored.values() {
            for (seq, record) in records.iter().enumerate() {
                prop_assert_eq!(record.record().seq, seq as u64);
                seen.extend(record.event().detail.get("n").map(|n| n.parse::<usize>().unwrap()));
            }
        }
        let total = seen.len();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), total, "an event was stored twice");
        for promised in &world.promised {
            prop_assert!(seen.binary_search(promised).is_ok(), "event {promised} was lost");
        }
    }
}
