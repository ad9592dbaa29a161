//! What the cloud says that a checkpoint covers, read and handed to the journal.

use edgeward_audit::Digest;
use edgeward_audit::log_proof::LogProof;
use edgeward_audit::merkle::MAX_PROOF_HASHES;
use edgeward_audit::watch::LogWatch;
use edgeward_wire::v1;

use super::{Upload, boot_of};
use crate::accept::{self, NotAccepted};
use crate::journal::Covered;

impl Upload {
    /// A checkpoint covers records: they may be deleted, if the log shows it. If it does not, the cloud is told.
    pub(in crate::session) fn covered(&mut self, covered: v1::AuditCovered) {
        if !covered.log_key.is_empty() {
            match self.log_key(&covered.log_key) {
                Ok(log) => self.log = Some(log),
                Err(error) => tracing::error!(%error, "the audit log's key is not accepted"),
            }
        }
        match self.read_covered(covered) {
            Ok(covered) => self.journal.covered(covered),
            Err(why) => {
                metrics::counter!("edgeward_journal_covered_otherwise_total", "code" => "unreadable")
                    .increment(1);
                tracing::error!(
                    why,
                    "word of a checkpoint shows nothing: nothing is deleted"
                );
                self.journal.not_shown().notify_one();
            }
        }
    }

    fn log_key(&self, bytes: &[u8]) -> Result<LogWatch, NotAccepted> {
        let (keys, now) = (self.view.keys.borrow().clone(), self.view.clock.now());
        accept::log_key(bytes, &keys, self.view.node.trust_domain(), now)
    }

    fn read_covered(&self, covered: v1::AuditCovered) -> Result<Covered, &'static str> {
        if covered.consistency.len() > MAX_PROOF_HASHES {
            return Err("too many hashes");
        }
        let consistency = covered.consistency.iter();
        let consistency = consistency.map(|hash| Digest::try_from(hash.as_slice()));
        Ok(Covered {
            boot: boot_of(&covered.boot_id).ok_or("no boot")?,
            next: covered.next_seq,
            log: self.log.clone().ok_or("no key of the log")?,
            proof: LogProof::parse(&covered.proof).map_err(|_| "no proof")?,
            from: covered.from,
            consistency: consistency
                .collect::<Result<_, _>>()
                .map_err(|_| "no hash")?,
        })
    }
}
