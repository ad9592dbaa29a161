//! Audit batches through the session service: signature, hash chain, deduplication, one transaction, acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use edgeward_audit::batch::{Batch, JournalKeyStatement};
use edgeward_audit::record::{BootId, BootOpened, Chain, Salts};
use edgeward_audit::{Event, EventKind, SealedRecord};
use edgeward_identity::{Clock, Kind, Signer, SoftwareKey, SpiffeId, SystemClock};
use edgeward_wire::v1::cloud_message::Body;
use edgeward_wire::v1::{self, node_message};

use super::attest::enrol_all;
use super::machine::{Enrolled, Machine, Session};
use super::server::{Server, Setup};
use super::{Options, Span};

/// Nodes that send at the same time, and records of a batch. Every node waits for one acknowledgement before the next
/// batch, as agents do.
const CELLS: [(usize, usize); 4] = [(1, 50), (1, 500), (8, 50), (8, 500)];
const NODES: usize = 8;

/// A node's journal in memory.
struct Journal {
    chain: Chain,
    salts: Salts,
    statement: JournalKeyStatement,
    key: SoftwareKey,
    peer: SpiffeId,
}

/// A node, its session and its journal.
struct Sender {
    machine: Machine,
    node: Enrolled,
    session: Session,
    journal: Journal,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let machines = Machine::many(NODES, (0, 0))?;
    let setup = Setup {
        database: options.database.as_deref(),
        attest_interval: "60s",
        attest_jitter: "10s",
    };
    let server = Server::start(setup, &machines)?;
    let mut senders = Vec::new();
    for (machine, node) in enrol_all(&server, machines).await? {
        let session = machine.attach(server.address, &node).await?;
        let journal = Journal::open(&machine, &node)?;
        senders.push(Sender {
            machine,
            node,
            session,
            journal,
        });
    }
    let bytes = senders
        .first_mut()
        .context("a sender")?
        .journal
        .seal()?
        .bytes()
        .len();
    println!("a record: {bytes} bytes");
    for (nodes, size) in CELLS {
        let end = Instant::now() + options.each;
        let stored = Arc::new(AtomicU64::new(0));
        let span = Span::begin(&server)?;
        let mut tasks = tokio::task::JoinSet::new();
        for mut sender in senders.drain(..nodes) {
            let stored = stored.clone();
            tasks.spawn(async move {
                while Instant::now() < end {
                    sender.batch(size).await?;
                    stored.fetch_add(u64::try_from(size)?, Ordering::Relaxed);
                }
                Ok::<_, anyhow::Error>(sender)
            });
        }
        while let Some(sender) = tasks.join_next().await {
            senders.push(sender??);
        }
        let what = format!("audit events, {nodes} nodes, batches of {size}");
        span.print(&server, &what, stored.load(Ordering::Relaxed))?;
    }
    println!("cloud rss: {:.1} MiB", server.rss_mib()?);
    Ok(())
}

impl Sender {
    /// Sends one batch and waits until it is stored.
    async fn batch(&mut self, size: usize) -> anyhow::Result<()> {
        let (batch, next) = self.journal.batch(size)?;
        self.session
            .send(node_message::Body::Audit(v1::AuditBatch { batch }))
            .await?;
        loop {
            match self.session.next().await? {
                Body::Audit(answer) => {
                    anyhow::ensure!(answer.refused_code.is_empty(), "{}", answer.refused_code);
                    anyhow::ensure!(answer.next_seq == next, "stored up to {}", answer.next_seq);
                    return Ok(());
                }
                Body::Challenge(challenge) => {
                    let answer = self.machine.answer(&self.node, &self.session, &challenge)?;
                    self.session.send(answer).await?;
                }
                _ => {}
            }
        }
    }
}

impl Journal {
    fn open(machine: &Machine, node: &Enrolled) -> anyhow::Result<Self> {
        let (boot, now) = (BootId::from_bytes(machine.boot()), SystemClock.now());
        let key = SoftwareKey::generate()?;
        Ok(Self {
            statement: JournalKeyStatement::sign(
                machine.svid_key(),
                &node.id,
                boot,
                key.public_key(),
                now,
            )?,
            chain: Chain::new(node.id.clone(), boot),
            salts: Salts::from_seed([1; 32]),
            key,
            peer: SpiffeId::new(node.id.trust_domain(), Kind::Node, "line-2-press-7")?,
        })
    }

    /// The next record: an allowed flow, as an agent records it. The first one opens the journal.
    fn seal(&mut self) -> anyhow::Result<SealedRecord> {
        let (now, node) = (SystemClock.now(), self.chain.node().clone());
        if self.chain.head().is_none() {
            let opened = BootOpened {
                previous: None,
                reset_count: Some(7),
                restart_count: Some(0),
            };
            let event = Event::new(now, node, EventKind::JournalOpened);
            return Ok(self.chain.seal_opening(opened, event, self.salts.draw())?);
        }
        let event = Event::new(now, self.peer.clone(), EventKind::FlowAllowed)
            .subject(node)
            .allowed()
            .rule("gateways-read-presses")
            .detail("direction", "in")
            .detail("protocol", "tcp")
            .detail("port", 4840)
            .detail("interface", "press/opc-ua")
            .detail("verdicts", 1);
        Ok(self.chain.seal(event, self.salts.draw())?)
    }

    /// A signed batch of the next `size` records, and the sequence number after it.
    fn batch(&mut self, size: usize) -> anyhow::Result<(Vec<u8>, u64)> {
        let mut records = Vec::with_capacity(size);
        for _ in 0..size {
            let record = self.seal()?;
            self.chain.advance(&record)?;
            records.push(record.bytes().to_vec());
        }
        let batch = Batch::sign(&self.statement, &self.key, records)?;
        let next = self.chain.next_seq().context("a sequence number")?;
        Ok((batch.to_bytes(), next))
    }
}
