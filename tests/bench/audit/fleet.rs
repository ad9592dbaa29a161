//! Nodes with journals, and what they record.

use edgeward_audit::batch::{Batch, JournalKey, JournalKeyStatement};
use edgeward_audit::event::{Actor, Event, EventKind, Subject};
use edgeward_audit::record::{BootId, BootOpened, Chain, Salt, Salts, SealedRecord};
use edgeward_identity::{
    Clock, Kind, Signer, SoftwareKey, SpiffeId, SystemClock, Timestamp, TrustDomain,
};

/// Nodes of the fleet; the first records a fifth of everything.
pub(super) const NODES: u64 = 1000;
/// Records of one batch.
pub(super) const BATCH: usize = 200;
/// Between two events, in milliseconds.
const STEP: u64 = 100;
const T0: u64 = 1_800_000_000_000;

/// Numbers that are the same in every run.
pub(super) struct Numbers(pub(super) u64);

/// One node's journal in memory.
pub(super) struct Journal {
    chain: Chain,
    salts: Salts,
    statement: JournalKeyStatement,
    key: SoftwareKey,
    /// What its batches are verified by.
    pub(super) verifier: JournalKey,
}

/// All of them.
pub(super) struct Fleet {
    pub(super) journals: Vec<Journal>,
    pub(super) numbers: Numbers,
    events: u64,
}

impl Numbers {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

impl Journal {
    /// Of the node `name`; no two may have one number.
    pub(super) fn open(name: &str, number: u64) -> anyhow::Result<Self> {
        let domain = TrustDomain::new("plant.example")?;
        let node = SpiffeId::new(&domain, Kind::Node, name)?;
        let mut boot = [1; 16];
        boot[..8].copy_from_slice(
            &(number + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes(),
        );
        let boot = BootId::from_bytes(boot);
        let (svid, key) = (SoftwareKey::generate()?, SoftwareKey::generate()?);
        let now = SystemClock.now();
        let statement = JournalKeyStatement::sign(&svid, &node, boot, key.public_key(), now)?;
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        Ok(Self {
            verifier: statement.verify(&node, svid.public_key(), now)?,
            chain: Chain::new(node, boot),
            salts: Salts::from_seed(seed),
            statement,
            key,
        })
    }

    /// The next batch as it comes over the wire; its events happen from the `at`-th on.
    pub(super) fn batch(
        &mut self,
        numbers: &mut Numbers,
        at: u64,
        count: usize,
    ) -> anyhow::Result<Vec<u8>> {
        let mut records = Vec::with_capacity(count);
        for at in (at..).take(count) {
            let salt = self.salts.draw();
            let record = match self.chain.head() {
                Some(_) => self
                    .chain
                    .seal(event(numbers, self.chain.node(), at), salt)?,
                None => opening(&self.chain, at, salt)?,
            };
            self.chain.advance(&record)?;
            records.push(record.bytes().to_vec());
        }
        Ok(Batch::sign(&self.statement, &self.key, records)?.to_bytes())
    }
}

impl Fleet {
    pub(super) fn new() -> anyhow::Result<Self> {
        let journals = (0..NODES).map(|number| Journal::open(&format!("gw-{number}"), number));
        Ok(Self {
            journals: journals.collect::<Result<_, _>>()?,
            numbers: Numbers(1),
            events: 0,
        })
    }

    /// Batches of whoever is next until there are so many events, by node.
    pub(super) fn batches(&mut self, events: u64) -> anyhow::Result<Vec<(usize, Vec<u8>)>> {
        let end = self.events + events;
        let mut batches = Vec::new();
        while self.events < end {
            let number = match self.numbers.below(5) {
                0 => 0,
                _ => usize::try_from(self.numbers.below(NODES))?,
            };
            let count = BATCH.min(usize::try_from(end - self.events)?);
            if let Some(journal) = self.journals.get_mut(number) {
                let batch = journal.batch(&mut self.numbers, self.events, count)?;
                batches.push((number, batch));
                self.events += u64::try_from(count)?;
            }
        }
        Ok(batches)
    }
}

/// When the `at`-th event of the fleet happens, or up to half a minute later.
pub(super) fn time(at: u64) -> Timestamp {
    Timestamp::from_millis(T0 + at * STEP)
}

pub(super) fn node(number: u64) -> SpiffeId {
    let domain = TrustDomain::new("plant.example").expect("a trust domain");
    SpiffeId::new(&domain, Kind::Node, &format!("gw-{number}")).expect("a node")
}

fn opening(chain: &Chain, at: u64, salt: Salt) -> anyhow::Result<SealedRecord> {
    let opened = BootOpened {
        previous: None,
        reset_count: Some(1),
        restart_count: Some(0),
    };
    let event = Event::new(time(at), Actor::Cloud, EventKind::JournalOpened);
    Ok(chain.seal_opening(opened, event, salt)?)
}

/// Six of ten are allowed flows, two denied ones; the rest is what a fleet does.
fn event(numbers: &mut Numbers, node: &SpiffeId, at: u64) -> Event {
    let time = Timestamp::from_millis(T0 + at * STEP + numbers.below(30_000));
    let peer = self::node(numbers.below(NODES));
    let sort = numbers.below(100);
    let counted = numbers.below(40) + 1;
    let bytes = numbers.below(200_000);
    let flow = |kind| {
        Event::new(time, peer.clone(), kind)
            .subject(node.clone())
            .rule(&format!("rule-{}", at % 50))
            .detail("interface", "plant/scada")
            .detail("count", counted)
            .detail("bytes", bytes)
    };
    match sort {
        0..60 => flow(EventKind::FlowAllowed).allowed(),
        60..80 => flow(EventKind::FlowDenied).denied("no-rule"),
        80..90 => Event::new(time, Actor::Cloud, EventKind::AttestationPassed).subject(peer),
        90..95 => Event::new(time, peer.clone(), EventKind::BindOpened)
            .subject(peer)
            .allowed(),
        95..98 => Event::new(time, Actor::Cloud, EventKind::SvidRenewed)
            .subject(peer)
            .allowed()
            .detail("serial", format!("{at:016x}")),
        98 if numbers.below(100) == 0 => {
            Event::new(time, Actor::Cloud, EventKind::NodeQuarantined).subject(peer)
        }
        98 => {
            let stranger = Actor::Anonymous(Some([10, 0, 0, 7].into()));
            Event::new(time, stranger, EventKind::SessionRefused).denied("svid_missing")
        }
        _ => Event::new(time, Actor::api_key("nightly"), EventKind::AuditRead)
            .subject(Subject::name("audit"))
            .allowed(),
    }
}
