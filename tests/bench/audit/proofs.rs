//! Proofs for one event (C2SP tlog-proof), made and checked.

use std::time::Instant;

use anyhow::Context;
use edgeward_audit::log_proof::LogProof;
use edgeward_audit::merkle::{leaf_hash, verify_inclusion};

use super::fleet::Numbers;
use super::{Cloud, at, timed};

const PROOFS: u64 = 1000;

pub(super) async fn measure(cloud: &Cloud, events: u64) -> anyhow::Result<()> {
    let head = cloud.log.log_head().newest().context("a checkpoint")?;
    let mut numbers = Numbers(5);
    let (mut took, mut checked, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..PROOFS {
        let index = numbers.below(events.min(head.size));
        let made = async {
            let event = cloud.store.event_at(index).await?.context("an event")?;
            let hashes = cloud.store.inclusion(index, head.size).await?;
            let record = event.record.into_bytes();
            let hash = edgeward_audit::SealedRecord::parse(&record)?.hash();
            let proof = LogProof {
                index,
                hashes,
                checkpoint: head.note.clone(),
                extra: Some(record),
            };
            anyhow::Ok((hash, proof.to_string(), proof))
        };
        let (hash, text, proof) = timed(made, &mut took).await?;
        let begun = Instant::now();
        let leaf = leaf_hash(hash.as_bytes());
        verify_inclusion(&leaf, index, head.size, &proof.hashes, &head.root)?;
        checked.push(begun.elapsed());
        bytes += text.len();
    }
    took.sort();
    checked.sort();
    println!(
        "proof of one of {events}: made p50 {:.2} ms, p99 {:.2} ms; its path checked p50 {:.3} ms; {} bytes with the record",
        at(&took, 50),
        at(&took, 99),
        at(&checked, 50),
        bytes / usize::try_from(PROOFS)?
    );
    Ok(())
}
